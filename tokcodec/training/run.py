"""`tokcodec pack` and `tokcodec train`: a folder of media in, weights out; training goes on where it last stopped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tokcodec.errors import ModelError, OutputError, UsageError
from tokcodec.metrics.lpips_network import VGG, load_lpips
from tokcodec.output import write_error
from tokcodec.tokenizer.device import choose_device
from tokcodec.training.checkpoint import INDEX_NAME, join_checkpoint
from tokcodec.training.config import RunConfig, check_phases
from tokcodec.training.distributed import Group, join_group, leave_group
from tokcodec.training.export import export
from tokcodec.training.loop import Trainer
from tokcodec.training.media import default_workers, find_media, leave_out
from tokcodec.training.meter import device_name
from tokcodec.training.packed import PackIndex, Sampler, is_packed, pack, read_index
from tokcodec.training.presets import PRESETS
from tokcodec.training.source import ClipSource
from tokcodec.training.store import FrameStore
from tokcodec.weights import WeightsEntry


def default_run(device: torch.device) -> RunConfig:
    """The preset for a device."""
    return PRESETS["gpu" if device.type == "cuda" else "cpu"]


def pack_folder(
    data: Path,
    out: Path,
    *,
    run: RunConfig,
    exclude: Sequence[str] = (),
    workers: int | None = None,
    force: bool = False,
    log: Callable[[str], None],
) -> PackIndex:
    """Pack a folder of media for :func:`train_folder`, on this machine or another, and stop.

    Args:
        data: Folder of videos and photographs, or of tar files of them.
        out: Folder of the pack. Where packing stopped half-way, it begins anew.
        run: What to pack (`pack`, with the seed of `train`), and the phases that are to fit.
        exclude: Patterns of what in `data` is left out, see :func:`tokcodec.training.media.leave_out`.
        workers: Processes that decode; by default one a processor.
        force: Whether a pack in `out` is replaced.
        log: Called with each line of the log.

    Returns:
        The index of the pack.

    Raises:
        MediaError: There is nothing to pack.
        UsageError: The phases do not fit into the clips, or nothing fits into `max_megabytes`.
        OutputError: There is a pack in `out`, or it cannot be written.
    """
    check_phases(run.train.phases, clip_frames=run.pack.clip_frames, side=run.pack.side)
    if is_packed(out) and not force:
        raise OutputError("holds a pack", where=str(out), hint="name another folder, or replace it with --force")
    choice = replace(run.pack, seed=run.train.seed)
    log(f"packing {data}")
    try:
        pack(data, out, choice, workers=workers or default_workers(), exclude=exclude, log=log)
    except OSError as error:
        raise write_error(error, where=str(out)) from error
    return read_index(out)


def train_folder(
    data: Path,
    out: Path,
    *,
    packed: bool = False,
    max_minutes: float,
    total_minutes: float,
    name: str,
    run: RunConfig | None = None,
    exclude: Sequence[str] = (),
    init: Path | None = None,
    lpips_weights: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    log: Callable[[str], None],
) -> WeightsEntry | None:
    """Read or pack the folder, train, save the checkpoint, and export the averaged weights.

    Args:
        data: Folder of videos and photographs, or of tar files of them; not read where `packed/` is there.
            With `packed`, a folder that :func:`pack_folder` made.
        out: Folder for `packed/`, `checkpoint.pt`, `log.jsonl` and the weights; where `parts/` holds a split
            checkpoint and there is no whole one, it is joined first.
        packed: Whether `data` is packed already; it is then only read.
        max_minutes: Minutes of training in this call; reading the data comes on top.
        total_minutes: Length of the whole run, which sets its phases and its learning rate.
        name: Name of the exported model.
        run: All choices; the preset of the device where there are none.
        exclude: Patterns of what in `data` is left out, see :func:`tokcodec.training.media.leave_out`.
        init: Weights to start from, where there is no checkpoint in `out`.
        lpips_weights: Folder of the backbone of LPIPS, where the run has that term.
        device: "auto", "cpu" or "cuda".
        workers: Processes that decode; by default one a processor.
        log: Called with each line of the log.

    Returns:
        The weights; None in the other processes of torchrun.

    Raises:
        MediaError: There is nothing to train on.
        UsageError: The phases do not fit into the packed clips, those were packed with other things left out, or
            there are none where `packed` says so.
        ModelError: The checkpoint in `out` is of another model, or weights cannot be read.
    """
    group = join_group(choose_device(device))
    try:
        return _train(
            data,
            out,
            packed=packed,
            max_minutes=max_minutes,
            total_minutes=total_minutes,
            name=name,
            run=run or default_run(group.device),
            exclude=exclude,
            init=init,
            lpips_weights=lpips_weights,
            group=group,
            workers=workers or max(1, default_workers() // group.size),
            log=log if group.first else lambda _: None,
        )
    finally:
        leave_group(group)


def _train(
    data: Path,
    out: Path,
    *,
    packed: bool,
    max_minutes: float,
    total_minutes: float,
    name: str,
    run: RunConfig,
    exclude: Sequence[str],
    init: Path | None,
    lpips_weights: Path | None,
    group: Group,
    workers: int,
    log: Callable[[str], None],
) -> WeightsEntry | None:
    place = data if packed else out / "packed"
    if packed or is_packed(place):
        _check_pack(place, run, exclude, carried=packed)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made: {error.strerror or error}", where=str(out)) from error
    checkpoint = out / "checkpoint.pt"
    if group.first and not checkpoint.exists() and (out / "parts" / INDEX_NAME).exists():
        join_checkpoint(out / "parts", checkpoint)
        log("checkpoint joined from its parts")
    group.agree([0.0])  # nobody looks for the checkpoint before the first process has joined it
    lpips = None
    if run.train.weights.lpips and lpips_weights is not None:
        dtype = torch.bfloat16 if run.train.precision == "bf16" else torch.float32
        loaded = load_lpips(VGG, folder=lpips_weights)
        if loaded.network is None:
            raise ModelError(loaded.reason, hint="name a folder with --lpips-weights")
        lpips = loaded.network
        lpips.features.to(dtype)
    trainer = Trainer(
        model_config=run.model,
        config=run.train,
        checkpoint=checkpoint,
        init=init,
        lpips=lpips,
        group=group,
    )
    source = _open_source(data, place, run, trainer, exclude=exclude, workers=workers, log=log)
    with contextlib.ExitStack() as stack:
        record = stack.enter_context((out / "log.jsonl").open("a", encoding="utf-8")) if group.first else None

        def write(line: str) -> None:
            if record is not None:
                record.write(line + "\n")
                record.flush()
                log(line)

        write(_first_line(run, trainer, init))
        trainer.run(
            source,
            max_minutes=max_minutes,
            total_minutes=total_minutes,
            log=lambda progress: write(progress.line()),
            note=lambda text: write(json.dumps({"note": text})),
        )
    return export(checkpoint, out, name=name) if group.first else None


def _first_line(run: RunConfig, trainer: Trainer, init: Path | None) -> str:
    """What a call is, for its log."""
    started = "resumed" if trainer.step else "initialised"
    if trainer.init_report is not None and init is not None:
        started = f"{init.name}: {trainer.init_report}"
    return json.dumps(
        {
            "run": json.loads(run.to_json()),
            "started": started,
            "step": trainer.step,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "device": device_name(trainer.device),
            "devices": trainer.group.size,
            "torch": torch.__version__,
        }
    )


def _open_source(
    data: Path,
    packed: Path,
    run: RunConfig,
    trainer: Trainer,
    *,
    exclude: Sequence[str],
    workers: int,
    log: Callable[[str], None],
) -> ClipSource:
    """All frames on the device, or packed crops, as the configuration says; both read what is packed already."""
    group, config = trainer.group, run.train
    seed = config.seed + trainer.step + 1000 * group.rank
    kind = config.source
    if kind == "auto":
        kind = "store" if group.device.type == "cuda" else "packed"
    here = is_packed(packed)
    if exclude and not here:
        found = find_media(data)
        log(f"{len(found) - len(leave_out(found, exclude))} of {len(found)} videos and photographs excluded")
    if kind == "store" and here:
        return FrameStore.load_packed(packed, device=group.device, seed=seed, augment=config.augment, log=log)
    if kind == "store":
        return FrameStore.load(
            data, device=group.device, seed=seed, workers=workers, exclude=exclude, augment=config.augment, log=log
        )
    if not here:
        check_phases(config.phases, clip_frames=run.pack.clip_frames, side=run.pack.side)
    group.agree([0.0])  # all have looked before the first packs
    if group.first and not here:
        log(f"packing {data}")
        choice = replace(run.pack, seed=config.seed)
        log(f"packed {pack(data, packed, choice, workers=workers, exclude=exclude, log=log)}")
    group.agree([0.0])
    return Sampler(packed, seed=seed, augment=config.augment, device=group.device)


def _check_pack(packed: Path, run: RunConfig, exclude: Sequence[str], *, carried: bool) -> None:
    """Refuse a packed folder that is not whole, or not what the call asks for."""
    index = read_index(packed)
    try:
        check_phases(run.train.phases, clip_frames=index.clip_frames, side=index.side)
    except UsageError as error:
        last = " of `tokcodec pack`, or train on smaller phases" if carried else "; remove the folder first"
        raise UsageError(error.message, where=str(packed), hint=f"{error.hint}{last}") from error
    if exclude and set(exclude) != set(index.exclude):
        raise UsageError(
            f"was packed with {' '.join(index.exclude) or 'nothing'} excluded",
            where=str(packed),
            hint="pack again with these patterns, or leave --exclude away"
            if carried
            else "remove the folder; the next call packs again",
        )
    index.check_files(packed)
