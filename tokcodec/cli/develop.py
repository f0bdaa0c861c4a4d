"""`train`, for those who make models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import Device, Json, Quiet, Verbose, console_of


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
