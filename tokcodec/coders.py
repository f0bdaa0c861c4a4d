"""Encoders and decoders of streams, with the networks that settings and files name: loaded once, on one device."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import torch

from tokcodec import mapping
from tokcodec.bits import MAX_LOOKS, looks
from tokcodec.container import DEFAULT_LIMITS, ContainerWriter, StreamHeader
from tokcodec.errors import ModelError
from tokcodec.frames import VideoInfo
from tokcodec.geometry import TokenGeometry
from tokcodec.pipeline import EncodeSettings
from tokcodec.probability import AUTOREGRESSIVE
from tokcodec.tokenizer.allocation import allocator_for
from tokcodec.tokenizer.device import prepare
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.tokenizer.post_filter import PostFilter
from tokcodec.tokenizer.refine import ITERATIONS
from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder
from tokcodec.weights import WeightsEntry, choose_post_filter, find_by_digest, load_post_filter, load_tokenizer


def _step_frames(settings: EncodeSettings, geometry: TokenGeometry, info: VideoInfo) -> tuple[int, ...]:
    """Frames that steps may show: fewer than all only where the encoder looks, and where any reader takes a chunk of
    one step a frame."""
    rows, columns = geometry.grid(info.height, info.width)
    steps = settings.chunk_frames
    takes = steps * rows * columns <= DEFAULT_LIMITS.chunk_tokens
    if settings.entropy.model == AUTOREGRESSIVE:
        takes &= looks(steps, rows, columns, bits=geometry.bits_per_token) <= MAX_LOOKS
    return settings.step_frames if takes and settings.effort else (geometry.temporal_factor,)


class Coders:
    """Makes encoders and decoders, and keeps their networks.

    Args:
        entry: The weights to encode with.
        weights: A weights file to decode with, beside those that come with the package.
        device: Where the networks run.
        style: Through which post-filter pictures are shown, see :func:`tokcodec.weights.choose_post_filter`.
    """

    def __init__(self, entry: WeightsEntry, *, weights: Path | None, device: torch.device, style: str) -> None:
        self._entry, self._weights, self._device, self._style = entry, weights, device, style
        self._models: dict[str, Tokenizer] = {}
        self._filters: dict[str, PostFilter] = {}

    def encoder(
        self, sink: BinaryIO, info: VideoInfo, settings: EncodeSettings, quality: float
    ) -> tuple[ContainerWriter, StreamEncoder]:
        """A writer with its header written, and an encoder, for a sink, a video, settings and a quality.

        Raises:
            ModelError: The prior of the settings is not there, or for other tokens.
        """
        encoder = self.stream_encoder(info, settings, quality)
        settings.entropy.check(encoder.geometry.bits_per_token)
        header = mapping.header_of(
            info,
            geometry=encoder.geometry,
            chunk_frames=settings.chunk_frames,
            tokenizer_name=self._entry.name,
            tokenizer_sha256=self._entry.sha256,
            probability_model=settings.entropy.wire_id,
            probability_digest=settings.entropy.digest,
        )
        return ContainerWriter(sink, header), encoder

    def stream_encoder(self, info: VideoInfo, settings: EncodeSettings, quality: float) -> StreamEncoder:
        """An encoder for a video, settings and a quality."""
        model = self._tokenizer(self._entry)
        return StreamEncoder(
            model,
            allocator_for(quality=quality, effort=settings.effort),
            iterations=ITERATIONS[settings.effort],
            step_frames=_step_frames(settings, model.config.geometry, info),
        )

    def decoder(self, header: StreamHeader) -> StreamDecoder:
        """A decoder for the file that has this header.

        Raises:
            ModelError: The weights that the file names are not there, or do not fit the header; or there is no
                post-filter of that style.
        """
        digest = header.tokenizer_digest.hex()
        entry = self._entry
        if self._weights is not None or entry.sha256 != digest:
            entry = find_by_digest(digest, extra=self._weights)
        model = self._tokenizer(entry)
        ours, theirs = model.config.geometry, header.geometry
        for name in (
            "bits_per_token",
            "spatial_factor",
            "temporal_factor",
            "motion_tokens",
            "motion_maps",
            "pictures",
            "residuals",
            "intra",
        ):
            if getattr(ours, name) != getattr(theirs, name):
                raise ModelError(
                    f"the file's {name} is {getattr(theirs, name)}, that of the model that it names is "
                    f"{getattr(ours, name)}",
                    where="header",
                )
        chosen = choose_post_filter(self._style, tokenizer=digest)
        shown = None if chosen is None else self._post_filter(chosen)
        return StreamDecoder(model, height=header.height, width=header.width, post_filter=shown)

    def _post_filter(self, entry: WeightsEntry) -> PostFilter:
        if entry.sha256 not in self._filters:
            self._filters[entry.sha256] = prepare(load_post_filter(entry), self._device)
        return self._filters[entry.sha256]

    def _tokenizer(self, entry: WeightsEntry) -> Tokenizer:
        if entry.sha256 not in self._models:
            self._models[entry.sha256] = prepare(load_tokenizer(entry), self._device)
        return self._models[entry.sha256]
