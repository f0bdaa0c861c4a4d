"""`tokcodec train`: a folder of media in, weights out; every call goes on where the last one stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokcodec.errors import OutputError, UsageError
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.stream import choose_device
from tokcodec.training.data import PackConfig, pack
from tokcodec.training.export import export
from tokcodec.training.loop import Progress, TrainConfig, Trainer
from tokcodec.weights import WeightsEntry


def train_folder(
    data: Path,
    out: Path,
    *,
    max_minutes: float,
    total_minutes: float,
    name: str,
    quantizer: str = "lfq",
    clips: int = PackConfig.clips,
    seed: int = 0,
    device: str = "auto",
    log: Callable[[str], None],
    model_config: TokenizerConfig | None = None,
    config: TrainConfig | None = None,
    pack_config: PackConfig | None = None,
) -> WeightsEntry:
    """Pack the folder (once), train, save the checkpoint, and export the averaged weights.

    Args:
        data: Folder of videos and photographs.
        out: Folder for `packed/`, `checkpoint.pt`, `log.jsonl` and the weights.
        max_minutes: Length of this call.
        total_minutes: Length of the whole run, which sets its phases and its learning rate.
        name: Name of the exported model.
        quantizer: "lfq" or "none".
        clips: Clips to pack.
        seed: Seed of everything random.
        device: "auto", "cpu" or "cuda".
        log: Called with each line of the log.
        model_config: The model, where it is not the default one.
        config: The run, where it is not the default one.
        pack_config: Sizes of the packed clips, where they are not the default ones.

    Raises:
        MediaError: There is nothing to train on.
        ModelError: The checkpoint in `out` is of another model.
    """
    if quantizer not in ("lfq", "none"):
        raise UsageError(f"unknown quantizer {quantizer!r}", hint="lfq or none")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made: {error.strerror or error}", where=str(out)) from error
    packed = out / "packed"
    if not (packed / "pack.json").exists():
        log(f"packing {data}")
        log(f"packed {pack(data, packed, pack_config or PackConfig(clips=clips, seed=seed))}")
    model_config = model_config or TokenizerConfig(quantizer="none" if quantizer == "none" else "lfq")
    trainer = Trainer(
        model_config=model_config,
        config=config or TrainConfig(seed=seed),
        data=packed,
        checkpoint=out / "checkpoint.pt",
        device=str(choose_device(device)),
    )
    with (out / "log.jsonl").open("a", encoding="utf-8") as record:

        def both(progress: Progress) -> None:
            line = progress.line()
            record.write(line + "\n")
            record.flush()
            log(line)

        trainer.run(max_minutes=max_minutes, total_minutes=total_minutes, log=both)
    return export(out / "checkpoint.pt", out, name=name)
