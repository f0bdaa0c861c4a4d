"""`eval`, for those who make models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import (
    Device,
    Json,
    Verbose,
)
from tokcodec.console import Console
from tokcodec.errors import UsageError


@app.command(name="eval")
def evaluate(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="A folder of videos never trained on.")],
    qualities: Annotated[str, typer.Option("--qualities", help="Quality levels to measure.")] = "1,2,3,4,5,6",
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Model name or weights file.")] = None,
    device: Device = "auto",
    json_results: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure rate and PSNR of a model over a folder: mean over clips at each quality level."""
    console = Console(json_results=json_results, verbosity=int(verbose))
    try:
        levels = tuple(int(level) for level in qualities.split(","))
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
