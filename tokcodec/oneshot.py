"""One file, one call: `tokcodec.encode` and `tokcodec.decode`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokcodec.chunks import AUTO
from tokcodec.codec import DEFAULT_CHUNK_FRAMES, DEFAULT_EFFORT, Codec
from tokcodec.pipeline import Progress
from tokcodec.rate import Rate
from tokcodec.results import CodecResult
from tokcodec.weights import AUTO_STYLE


def encode(
    source: str | Path,
    target: str | Path,
    *,
    quality: int | None = None,
    rate: Rate | None = None,
    model: str | None = None,
    device: str = "auto",
    entropy: str = AUTO,
    prior: str | Path | None = None,
    effort: int = DEFAULT_EFFORT,
    chunk_frames: int = DEFAULT_CHUNK_FRAMES,
    scene_cuts: bool = True,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    audio: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> CodecResult:
    """Encode one video or picture into a `.tok` file.

    For the arguments and errors see :class:`Codec` (`model`, `device`, `entropy`, `prior`) and :meth:`Codec.encode`
    (the others).
    """
    return Codec(model=model, device=device, entropy=entropy, prior=prior).encode(
        source,
        target,
        quality=quality,
        rate=rate,
        effort=effort,
        chunk_frames=chunk_frames,
        scene_cuts=scene_cuts,
        start_seconds=start_seconds,
        duration_seconds=duration_seconds,
        audio=audio,
        force=force,
        progress=progress,
    )


def decode(
    source: str | Path,
    target: str | Path,
    *,
    codec: str | None = None,
    crf: float | None = None,
    options: Mapping[str, str] | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    prior: str | Path | None = None,
    style: str | Path = AUTO_STYLE,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    audio: bool = True,
    conceal: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> CodecResult:
    """Decode one `.tok` file into a media file.

    For the arguments and errors see :class:`Codec` (`weights`, `device`, `prior`, `style`) and :meth:`Codec.decode`
    (the others).
    """
    return Codec(weights=weights, device=device, prior=prior, style=style).decode(
        source,
        target,
        codec=codec,
        crf=crf,
        options=options,
        start_seconds=start_seconds,
        duration_seconds=duration_seconds,
        audio=audio,
        conceal=conceal,
        force=force,
        progress=progress,
    )
