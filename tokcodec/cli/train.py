"""`pack`, `train` and `checkpoint`, for those who make models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import Device, Force, Json, Quiet, Verbose, console_of
from tokcodec.errors import UsageError

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.json", help="All choices of the run; see docs/training.md.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="Leave out files by their path in the folder; may be repeated."),
]
Clips = Annotated[int | None, typer.Option("--clips", min=1, help="Clips to pack.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes that decode.")]


@app.command(short_help="Pack training data, to train from it elsewhere.")
def pack(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder of videos and photographs, or tar files of them.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The pack, for `train --packed`.")],
    config: Config = None,
    exclude: Exclude = None,
    clips: Clips = None,
    max_megabytes: Annotated[
        float | None,
        typer.Option("--max-megabytes", min=0.001, help="Most that the pack may take, in 10^6 bytes, by fewer clips."),
    ] = None,
    seed: Seed = None,
    workers: Workers = None,
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Decode a folder and search its motion once: random crops, in files of at most 60 MiB, to train from anywhere."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    from tokcodec.training.config import read_run_config
    from tokcodec.training.presets import PRESETS
    from tokcodec.training.run import pack_folder

    run = PRESETS["cpu"] if config is None else read_run_config(config, PRESETS, PRESETS["cpu"])
    choices = {"clips": clips, "max_megabytes": max_megabytes}
    given = {key: value for key, value in choices.items() if value is not None}
    run = dataclasses.replace(run, pack=dataclasses.replace(run.pack, **given))  # type: ignore[arg-type]
    if seed is not None:
        run = dataclasses.replace(run, train=dataclasses.replace(run.train, seed=seed))
    index = pack_folder(data, out, run=run, exclude=exclude or (), workers=workers, force=force, log=console.note)
    counts, files, size = index.counts, 1 + len(index.shards), index.size_bytes(out)
    lines = [
        ("packed", str(out)),
        ("clips", f"{counts['clips']}, {counts['camera_moves']} of them camera moves over photographs"),
        *(
            (name.replace("_", " "), str(count))
            for name, count in counts.items()
            if name not in ("clips", "camera_moves")
        ),
        ("size", f"{size / 1e6:.1f} MB in {files} files"),
    ]
    console.result({"packed": str(out), **counts, "files": files, "bytes": size}, lines)


@app.command(short_help="Train a tokenizer on one's own videos.")
def train(
    *,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Folder of videos and photographs, or tar files of them."),
    ] = None,
    packed: Annotated[
        Path | None, typer.Option("--packed", metavar="DIR", help="Instead of --data: what `tokcodec pack` made.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Packed data, checkpoint, log and weights.")],
    max_minutes: Annotated[float, typer.Option("--max-minutes", min=0.01, help="Train for so long.")],
    total_minutes: Annotated[
        float | None, typer.Option("--total-minutes", min=0.01, help="Length of the whole run, over all calls.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the exported model.")] = "own",
    config: Config = None,
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
        str | None,
        typer.Option("--quantizer", metavar="lfq|none", help="none: continuous latents, no hybrid."),
    ] = None,
    exclude: Exclude = None,
    clips: Clips = None,
    seed: Seed = None,
    workers: Workers = None,
    device: Device = "auto",
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a tokenizer on one's own videos; call again to go on where the last call stopped."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    source = packed or data
    if source is None or (packed is not None and data is not None):
        fault = "nothing to train on is named" if source is None else "--data and --packed exclude each other"
        raise UsageError(fault, hint="--data DIR for a folder of media, --packed DIR for what `tokcodec pack` made")
    if packed is not None and clips is not None:
        raise UsageError("--clips is for packing", hint="leave it away, or pack again: `tokcodec pack --clips`")
    if config is not None and preset is not None:
        raise UsageError("--config and --preset exclude each other", hint='name the preset in the file: "preset"')
    if quantizer not in (None, "lfq", "none"):
        raise UsageError(f"unknown quantizer {quantizer!r}", hint="lfq or none")
    from tokcodec.tokenizer.device import choose_device
    from tokcodec.training.config import read_run_config
    from tokcodec.training.presets import PRESETS
    from tokcodec.training.run import default_run, train_folder

    if preset is not None and preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}", hint=f"known: {', '.join(PRESETS)}")
    run = PRESETS[preset] if preset is not None else default_run(choose_device(device))
    if config is not None:
        run = read_run_config(config, PRESETS, run)
    if quantizer is not None:
        plain = run.model
        if quantizer == "none" and plain.hybrid:  # which decides bit by bit: its network alone can be continuous
            blocks = plain.encoder_blocks or plain.decoder_blocks
            plain = dataclasses.replace(plain, hybrid=False, encoder_blocks=blocks)
        run = dataclasses.replace(
            run, model=dataclasses.replace(plain, quantizer=cast(Literal["lfq", "none"], quantizer))
        )
    if clips is not None:
        run = dataclasses.replace(run, pack=dataclasses.replace(run.pack, clips=clips))
    if seed is not None:
        run = dataclasses.replace(run, train=dataclasses.replace(run.train, seed=seed))
    entry = train_folder(
        source,
        out,
        packed=packed is not None,
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
