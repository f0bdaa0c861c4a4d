"""`tokcodec train-prior`: `.tok` files in, the weights of a prior out; a call goes on where the last stopped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from tokcodec.errors import OutputError
from tokcodec.probability.prior_config import PriorConfig
from tokcodec.tokenizer.device import choose_device
from tokcodec.training.prior_data import ChunkSampler, load_chunks
from tokcodec.training.prior_export import export_prior
from tokcodec.training.prior_loop import PriorTrainConfig, PriorTrainer
from tokcodec.weights.registry import WeightsEntry

FITTED_CHUNKS = 16
"""Chunks to which the mixing weights are fitted."""


def train_prior_folder(
    tokens: Path,
    out: Path,
    *,
    max_minutes: float,
    total_minutes: float,
    name: str,
    config: PriorConfig | None = None,
    train: PriorTrainConfig | None = None,
    init: Path | None = None,
    device: str = "auto",
    log: Callable[[str], None],
) -> WeightsEntry:
    """Train a prior on the tokens of a folder, save the checkpoint, and export integer weights.

    Args:
        tokens: Folder of `.tok` files of one tokenizer, at any depth.
        out: Folder for `checkpoint.pt`, `log.jsonl` and the weights.
        max_minutes: Minutes of training in this call.
        total_minutes: Length of the whole run, which sets its learning rate.
        name: Name of the exported prior.
        config: Sizes of the network; by default those of the tokens' bits.
        train: Choices of the run.
        init: Checkpoint or weights to start from, where `out` has none.
        device: "auto", "cpu" or "cuda".
        log: Called with each line of the log.

    Raises:
        UsageError: There are no tokens to train on.
        ModelError: The checkpoint in `out`, or `init`, is of another network.
        OutputError: The folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made: {error.strerror or error}", where=str(out)) from error
    geometry, chunks = load_chunks(tokens)
    config = config or PriorConfig(bits_per_token=geometry.bits_per_token)
    train = train or PriorTrainConfig()
    trainer = PriorTrainer(
        config,
        train,
        level_bits=geometry.level_bits,
        checkpoint=out / "checkpoint.pt",
        device=choose_device(device),
        init=init,
    )
    # Seeded by the step too, so that a call that goes on does not draw the same crops again.
    sampler = ChunkSampler(
        chunks, steps=train.steps, rows=train.rows, columns=train.columns, seed=train.seed + trainer.step
    )
    with (out / "log.jsonl").open("a", encoding="utf-8") as record:

        def write(line: str) -> None:
            record.write(line + "\n")
            record.flush()
            log(line)

        choices = {"model": json.loads(config.to_json()), "train": dataclasses.asdict(train)}
        write(json.dumps({"run": choices, "step": trainer.step, "chunks": len(chunks)}))
        trainer.run(sampler, max_minutes=max_minutes, total_minutes=total_minutes, log=write)
    return export_prior(trainer.model, out, name=name, chunks=sampler.some(FITTED_CHUNKS))
