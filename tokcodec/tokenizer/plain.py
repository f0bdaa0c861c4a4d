"""A hybrid's decoder without a network (spec 8.5): pictures are what motion, residuals and cosines make of them.

It is for speed. What a network would have mended is left to the post-filter, which no step waits for.
"""

from __future__ import annotations

from torch import Tensor

from tokcodec.tokenizer.between import Mean
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.hybrid import HybridDecoder, Known
from tokcodec.tokenizer.state import DecoderState
from tokcodec.tokenizer.transform import CELL, CellTransform


class PlainDecoder(HybridDecoder):
    """A hybrid's decoder without a network."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(config)
        self._transform = CellTransform(config.bits_per_token, first=False)
        self.between = Mean()

    @property
    def transform(self) -> CellTransform:
        """Of later steps."""
        return self._transform

    @property
    def last_weight(self) -> Tensor:
        """The one there is."""
        share: Tensor = self.between.share  # type: ignore[assignment]
        return share

    def begin(self, picture: Tensor) -> DecoderState:
        """See :meth:`HybridDecoder.begin`; there are no features."""
        batch, _, height, width = picture.shape
        features = picture.new_zeros(batch, 0, height // CELL, width // CELL)
        return DecoderState(features=features, picture=picture.clamp(-1.0, 1.0))

    def _mended(self, known: Known, state: DecoderState) -> tuple[Tensor, Tensor, Tensor]:
        return state.features, state.features, known.pixels
