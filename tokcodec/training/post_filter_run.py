"""`tokcodec train-post-filter`: videos in, the weights of a post-filter out; a call goes on where the last stopped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tokcodec.errors import ModelError, OutputError, UsageError
from tokcodec.metrics.backbones import Precision
from tokcodec.metrics.lpips_network import ALEX, VGG, Backbone, Lpips, load_lpips
from tokcodec.tokenizer.device import choose_device, fast_dtype
from tokcodec.tokenizer.post_filter import PostFilterConfig
from tokcodec.training.coded_clips import CropSampler, code_clips, read_clips
from tokcodec.training.media import default_workers, find_media, leave_out
from tokcodec.training.post_filter_loop import PostFilterTrainConfig, PostFilterTrainer
from tokcodec.weights import WeightsEntry, default_entry, find_by_name
from tokcodec.weights.post_filters import choose_post_filter, load_post_filter, save_post_filter


def train_post_filter_folder(
    data: Path | None,
    out: Path,
    *,
    max_minutes: float,
    total_minutes: float,
    name: str,
    config: PostFilterConfig | None = None,
    train: PostFilterTrainConfig | None = None,
    model: str | None = None,
    exclude: Sequence[str] = (),
    init: Path | None = None,
    teacher: str | None = None,
    lpips_weights: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    log: Callable[[str], None],
) -> WeightsEntry:
    """Code parts of the videos of a folder, train a post-filter on them, save the checkpoint, and export it.

    Args:
        data: Folder of videos, at any depth, or of tar files of them; None where `out/coded` has all there shall be.
        out: Folder for `coded/`, `checkpoint.pt`, `log.jsonl` and the weights.
        max_minutes: Minutes of training in this call; coding comes on top.
        total_minutes: Length of the whole run, which sets its learning rate.
        name: Name of the exported filter.
        config: Sizes of the network.
        train: Choices of the run.
        model: The tokenizer whose pictures it is for, as `tokcodec encode --model` takes it.
        exclude: Patterns of what in `data` is left out, see :func:`tokcodec.training.media.leave_out`.
        init: To start from, where `out` has no checkpoint: one of a filter of these sizes, or weights, which may be
            those of one with fewer blocks, or one that is not told the quantizer.
        teacher: A filter to learn from: a style of that tokenizer, the name of a filter that comes with the package, or
            the path of a `.safetensors` file.
        lpips_weights: Folder of the backbones of LPIPS.
        device: "auto", "cpu" or "cuda".
        workers: Processes that code; by default one a processor.
        log: Called with each line of the log.

    Raises:
        MediaError: There are no videos.
        UsageError: `out/coded` was made of other videos, or by another model, or does not say of a filter by scale what
            it has to be told; or the teacher is a style that has no filter.
        ModelError: The checkpoint is of another network, a backbone is not there, or the teacher is not there or told
            the quantizer where the other is not.
        OutputError: The folder cannot be made.
    """
    config, train = config or PostFilterConfig(), train or PostFilterTrainConfig()
    place = choose_device(device)
    if fast_dtype(place) == torch.float32:  # bfloat16 is many times as slow where a CPU has no instructions for it
        train = dataclasses.replace(train, precision="float32")
    taught_by = None if teacher is None else _teacher(teacher, model)
    alex, vgg = (
        _backbone(backbone, lpips_weights, place) if train.weights.lpips and share else None
        for backbone, share in ((ALEX, train.alex), (VGG, train.vgg))
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made: {error.strerror or error}", where=str(out)) from error
    coded = _place_of_clips(out, data, model=model, exclude=exclude, seed=train.seed)
    if data is not None:
        items = leave_out(find_media(data), exclude)
        workers = default_workers() if workers is None else workers
        code_clips(items, coded, model=model, seed=train.seed, workers=workers, say=log)
    clips = list(read_clips(coded))
    if config.by_scale and any(clip.scale is None for clip in clips):
        raise UsageError(
            "a filter by scale needs clips that say at which quantizer their first pictures were coded",
            where=str(coded),
            hint="delete those that were coded before, to have them coded again, or leave --by-scale out; "
            "models without first pictures by coefficients have none",
        )
    trainer = PostFilterTrainer(
        config,
        train,
        checkpoint=out / "checkpoint.pt",
        device=place,
        alex=alex,
        vgg=vgg,
        init=init,
        teacher=None if taught_by is None else load_post_filter(taught_by),
    )
    # Seeded by the step too, so that a call that goes on does not draw the same crops again.
    sampler = CropSampler(clips, seed=train.seed + trainer.step)
    with (out / "log.jsonl").open("a", encoding="utf-8") as record:

        def write(line: str) -> None:
            record.write(line + "\n")
            record.flush()
            log(line)

        choices: dict[str, object] = {"model": json.loads(config.to_json()), "train": dataclasses.asdict(train)}
        if taught_by is not None:
            choices["teacher"] = taught_by.sha256
        write(json.dumps({"run": choices, "step": trainer.step, "clips": len(clips)}))
        if trainer.minutes >= total_minutes:
            log(f"the run is complete: it has had {trainer.minutes:.1f} of {total_minutes:g} minutes")
        trainer.run(sampler, max_minutes=max_minutes, total_minutes=total_minutes, log=write)
    return save_post_filter(trainer.averaged(), out, name=name)


def _place_of_clips(out: Path, data: Path | None, *, model: str | None, exclude: Sequence[str], seed: int) -> Path:
    """`coded`, which says what it was made of, so that other pictures are never mixed in.

    Raises:
        UsageError: It was made of something else.
    """
    folder = out / "coded"
    if data is None:
        return folder
    entry = default_entry() if model is None else find_by_name(model)
    made_of = json.dumps(
        {"data": str(data.resolve()), "exclude": sorted(exclude), "tokenizer": entry.sha256, "seed": seed}, indent=1
    )
    note = folder / "made-of.json"
    if note.exists() and note.read_text(encoding="utf-8") != made_of:
        raise UsageError(
            "the coded clips there were made of other videos, by another model, or with another seed",
            where=str(folder),
            hint="give another --out, or leave --data out to train on them as they are",
        )
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(made_of, encoding="utf-8")
    return folder


def _teacher(style: str, model: str | None) -> WeightsEntry:
    """The filter that a style or a file stands for, for pictures of that model.

    Raises:
        UsageError: The style leaves pictures as they are.
        ModelError: There is none.
    """
    tokenizer = default_entry() if model is None else find_by_name(model)
    entry = choose_post_filter(style, tokenizer=tokenizer.sha256)
    if entry is None:
        raise UsageError(
            f"the style {style!r} is no filter that another could learn from",
            hint="give --teacher the name of a post-filter, or the path of its .safetensors file",
        )
    return entry


def _backbone(backbone: Backbone, folder: Path | None, device: torch.device) -> Lpips:
    precision: Precision = "bfloat16" if fast_dtype(device) == torch.bfloat16 else "float32"
    loaded = load_lpips(backbone, folder=folder, device=device, precision=precision)
    if loaded.network is None:
        raise ModelError(loaded.reason, hint="give their folder with --lpips-weights, or train without: --lpips 0")
    return loaded.network.requires_grad_(False)
