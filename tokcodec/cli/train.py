"""`train` and `checkpoint`, for those who make models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import Device, Force, Json, Quiet, Verbose, console_of
from tokcodec.errors import UsageError


@app.command(short_help="Train a tokenizer on one's own videos.")
def train(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder of videos and photographs, or tar files of them.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Packed data, checkpoint, log and weights.")],
    max_minutes: Annotated[float, typer.Option("--max-minutes", min=0.01, help="Train for so long.")],
    total_minutes: Annotated[
        float | None, typer.Option("--total-minutes", min=0.01, help="Length of the whole run, over all calls.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the exported model.")] = "own",
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.json", help="All choices of the run; see docs/training.md.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="cpu|gpu", help="Choices by name; by default the device's.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="FILE", help="Start from weights: .safetensors or a checkpoint.")
    ] = None,
    lpips_weights: Annotated[
        Path | None, typer.Option("--lpips-weights", metavar="DIR", help="Folder of vgg16_features.safetensors.")
    ] = None,
    quantizer: Annotated[
        str | None, typer.Option("--quantizer", metavar="lfq|none", help="none: continuous latents.")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="Leave out files by their path in the folder; may be repeated."),
    ] = None,
    clips: Annotated[int | None, typer.Option("--clips", min=1, help="Clips to pack.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes that decode.")] = None,
    device: Device = "auto",
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a tokenizer on one's own videos; call again to go on where the last call stopped."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    if config is not None and preset is not None:
        raise UsageError("--config and --preset exclude each other", hint='name the preset in the file: "preset"')
    if quantizer not in (None, "lfq", "none"):
        raise UsageError(f"unknown quantizer {quantizer!r}", hint="lfq or none")
    from tokcodec.tokenizer.stream import choose_device
    from tokcodec.training.config import read_run_config
    from tokcodec.training.presets import PRESETS
    from tokcodec.training.run import default_run, train_folder

    if preset is not None and preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}", hint=f"known: {', '.join(PRESETS)}")
    run = PRESETS[preset] if preset is not None else default_run(choose_device(device))
    if config is not None:
        run = read_run_config(config, PRESETS, run)
    if quantizer is not None:
        run = dataclasses.replace(
            run, model=dataclasses.replace(run.model, quantizer=cast(Literal["lfq", "none"], quantizer))
        )
    if clips is not None:
        run = dataclasses.replace(run, pack=dataclasses.replace(run.pack, clips=clips))
    if seed is not None:
        run = dataclasses.replace(run, train=dataclasses.replace(run.train, seed=seed))
    entry = train_folder(
        data,
        out,
        max_minutes=max_minutes,
        total_minutes=max_minutes if total_minutes is None else total_minutes,
        name=name,
        run=run,
        exclude=exclude or (),
        init=init,
        lpips_weights=lpips_weights,
        device=device,
        workers=workers,
        log=console.note,
    )
    if entry is not None:
        console.result({"weights": str(entry.path), "sha256": entry.sha256}, [("weights", str(entry.path))])


checkpoint = typer.Typer(
    help="Cut a training checkpoint into files below 16 MiB, and put them together again.",
    short_help="Cut a checkpoint into small files, and join them.",
)
app.add_typer(checkpoint, name="checkpoint", no_args_is_help=True)


@checkpoint.command()
def split(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The checkpoint.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the parts and their index go.")],
    optimizer: Annotated[
        str, typer.Option("--optimizer", metavar="whole|half|none", help="What of the optimizer's state to keep.")
    ] = "whole",
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Cut a checkpoint into parts with an index of their SHA-256."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    if optimizer not in ("whole", "half", "none"):
        raise UsageError(f"--optimizer cannot be {optimizer!r}", hint="whole, half (bfloat16) or none")
    from tokcodec.training.checkpoint import split_checkpoint

    index = split_checkpoint(file, folder, optimizer=cast(Literal["whole", "half", "none"], optimizer))
    console.result({"index": str(index)}, [("index", str(index))])


@checkpoint.command()
def join(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The parts and their index.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The checkpoint to write.")],
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check the parts of a checkpoint and put them together."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    from tokcodec.output import check_target
    from tokcodec.training.checkpoint import join_checkpoint

    check_target(file, force=force)
    join_checkpoint(folder, file)
    console.result({"checkpoint": str(file)}, [("checkpoint", str(file))])
