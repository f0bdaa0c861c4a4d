"""Named configurations of a run."""

from __future__ import annotations

from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.training.config import Phase, RunConfig, TrainConfig
from tokcodec.training.losses import LossWeights

WIDE = TokenizerConfig(bits_per_token=54, level_bits=(0, 3, 6, 9, 12, 15, 18, 24, 30, 36, 45, 54), coded_motion=True)
"""Sizes of the weights that ship: tokens of three words of 18 bits, of which later steps usually keep one, and a motion
map beside them."""

CPU = RunConfig(model=WIDE)
"""Hours on a few CPU cores: small crops, images first."""

GPU = RunConfig(
    model=WIDE,
    train=TrainConfig(
        phases=(
            Phase(share=0.05, frames=1, side=128, batch=512, stage="full", lpips=False),
            Phase(share=0.45, frames=17, side=128, batch=64, stage="full", lpips=False),
            Phase(share=0.50, frames=17, side=128, batch=64, stage="nested"),
        ),
        learning_rate=2e-3,
        ema=0.999,
        compile=True,
        lpips_frames=64,
        weights=LossWeights(lpips=0.1),
    ),
)
"""Minutes on a GPU of 80 GB or more, all frames in its memory. The weight of LPIPS and the batches are guesses."""

PRESETS = {"cpu": CPU, "gpu": GPU}
