"""Named configurations of a run."""

from __future__ import annotations

from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.training.config import Phase, RunConfig, TrainConfig
from tokcodec.training.losses import LossWeights
from tokcodec.training.pack_plan import PackConfig

MODEL = TokenizerConfig(
    encoder_blocks=0,
    bits_per_token=62,
    level_bits=(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 46, 54, 62),
    coded_motion=True,
    hybrid=True,
    wavelet=True,
    residuals=True,
    intra=True,
    mean_between=True,
)
"""Sizes of the weights `base`: first pictures by blocks, later ones by coarse wavelets and cosines that are bits, seven
motion maps a step, a network that decodes last frames, and the mean of two for those between."""
TOP_LEVEL = len(MODEL.level_bits) - 1

CPU = RunConfig(
    model=MODEL,
    pack=PackConfig(clip_frames=33, side=144),
    train=TrainConfig(
        phases=(
            Phase(share=0.10, frames=5, side=128, batch=10, stage="nested", lpips=False),
            Phase(share=0.40, frames=17, side=144, batch=3, stage="nested", lpips=False),
            Phase(share=0.50, frames=33, side=112, batch=3, stage="nested"),
        ),
        learning_rate=1.2e-3,
        usual_level=TOP_LEVEL,
        lpips_frames=6,
    ),
)
"""Hours on a few CPU cores: small crops, few frames first."""

GPU = RunConfig(
    model=MODEL,
    pack=CPU.pack,
    train=TrainConfig(
        phases=(
            Phase(share=0.05, frames=5, side=128, batch=200, stage="nested", lpips=False),
            Phase(share=0.35, frames=17, side=128, batch=64, stage="nested", lpips=False),
            Phase(share=0.60, frames=33, side=128, batch=32, stage="nested"),
        ),
        learning_rate=2e-3,
        ema=0.999,
        compile=True,
        usual_level=TOP_LEVEL,
        lpips_frames=64,
        weights=LossWeights(lpips=0.4),
    ),
)
"""Minutes on a GPU of 80 GB or more, all frames in its memory. The batches are guesses."""

PRESETS = {"cpu": CPU, "gpu": GPU}
