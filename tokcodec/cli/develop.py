"""`eval` and `train`, for those who make models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import (
    Device,
    Json,
    Quiet,
    Verbose,
    console_of,
)
from tokcodec.errors import UsageError


@app.command(name="eval")
def evaluate(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="A folder of videos never trained on.")],
    qualities: Annotated[str, typer.Option("--qualities", help="Quality levels to measure.")] = "1,2,3,4,5,6",
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Model name or weights file.")] = None,
    device: Device = "auto",
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure rate and PSNR of a model over a folder: mean over clips at each quality level."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    try:
        levels = tuple(sorted({int(level) for level in qualities.split(",")}))
    except ValueError as error:
        raise UsageError(f"{qualities!r} is not a list of quality levels", hint="for example 1,3,6") from error
    from tokcodec.codec import Codec
    from tokcodec.evaluation import find_clips, score_clips

    scores = []
    for score in score_clips(find_clips(data), Codec(model=model, device=device), qualities=levels):
        console.debug(
            f"{score.clip} quality {score.quality}: {score.bits_per_pixel:.4f} bits per pixel, {score.psnr:.2f} dB"
        )
        scores.append(score)
    rows = []
    for level in levels:
        some = [score for score in scores if score.quality == level]
        rows.append(
            {
                "quality": level,
                "clips": len(some),
                "frames": sum(score.frames for score in some),
                "bits_per_pixel": sum(score.bits_per_pixel for score in some) / len(some),
                "psnr_db": sum(score.psnr for score in some) / len(some),
            }
        )
    lines = [
        (
            f"quality {row['quality']}",
            f"{row['bits_per_pixel']:.5f} bits per pixel  {row['psnr_db']:.2f} dB PSNR",
        )
        for row in rows
    ]
    clip_values = [dataclasses.asdict(score) for score in scores]
    console.result({"levels": rows, "clips": clip_values}, lines)


@app.command()
def train(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of videos and photographs.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Packed data, checkpoint, log and weights.")],
    max_minutes: Annotated[float, typer.Option("--max-minutes", min=0.05, help="Stop after so long.")],
    total_minutes: Annotated[
        float | None, typer.Option("--total-minutes", help="Length of the whole run, over all calls.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the exported model.")] = "own",
    quantizer: Annotated[
        str, typer.Option("--quantizer", metavar="lfq|none", help="none: continuous latents.")
    ] = "lfq",
    clips: Annotated[int, typer.Option("--clips", min=1, help="Clips to pack.")] = 4000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    device: Device = "auto",
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a tokenizer on one's own videos; call again to go on where the last call stopped."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    from tokcodec.training.run import train_folder

    entry = train_folder(
        data,
        out,
        max_minutes=max_minutes,
        total_minutes=max_minutes if total_minutes is None else total_minutes,
        name=name,
        quantizer=quantizer,
        clips=clips,
        seed=seed,
        device=device,
        log=console.note,
    )
    console.result({"weights": str(entry.path), "sha256": entry.sha256}, [("weights", str(entry.path))])
