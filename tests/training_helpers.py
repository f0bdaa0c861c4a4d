"""What several tests of training need: a small model, its phases, frames of noise."""

from __future__ import annotations

from pathlib import Path

import torch

from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.training.config import Phase, TrainConfig
from tokcodec.training.loop import Trainer
from tokcodec.training.objective import Allocations
from tokcodec.training.store import FrameStore

SMALL = TokenizerConfig(frame_channels=8, latent_channels=64, encoder_blocks=1, decoder_blocks=1)
PHASES = (
    Phase(share=0.5, frames=1, side=32, batch=4, stage="full"),
    Phase(share=0.5, frames=5, side=32, batch=2, stage="nested"),
)


def some_frames() -> FrameStore:
    """A video and a photograph of noise in memory."""
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (9, 48, 48, 3), dtype=torch.uint8, generator=generator)
    photograph = torch.randint(0, 256, (1, 48, 48, 3), dtype=torch.uint8, generator=generator)
    return FrameStore([video], [photograph], seed=0)


def trainer(checkpoint: Path, model: TokenizerConfig = SMALL, **options: object) -> Trainer:
    config = TrainConfig(phases=PHASES, **options)  # type: ignore[arg-type]
    return Trainer(model_config=model, config=config, checkpoint=checkpoint)


def everything(batch: int, steps: int, side: int) -> Allocations:
    """All bits of all tokens."""
    return Allocations(levels=torch.full((batch, steps, side, side), 6), still=torch.zeros(batch))
