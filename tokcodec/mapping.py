"""What a media file says of itself <-> what a `.tok` header says (spec section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from tokcodec import container, frames
from tokcodec.container import wire
from tokcodec.geometry import TokenGeometry

KINDS = {
    "audio": wire.KIND_AUDIO,
    "subtitle": wire.KIND_SUBTITLE,
    "data": wire.KIND_DATA,
    "attachment": wire.KIND_ATTACHMENT,
}
KIND_NAMES = {number: name for name, number in KINDS.items()}


def bounded_ratio(value: Fraction | None) -> Fraction | None:
    """The nearest ratio whose terms the header can hold; None stays None."""
    if value is None or value <= 0:
        return None
    if max(value.numerator, value.denominator) <= wire.MAX_RATIO_TERM:
        return value
    return value.limit_denominator(wire.MAX_RATIO_TERM >> 1)


def header_of(
    info: frames.VideoInfo,
    *,
    geometry: TokenGeometry,
    chunk_frames: int,
    tokenizer_name: str,
    tokenizer_sha256: str,
    probability_model: int = container.PROBABILITY_ADAPTIVE,
    probability_digest: bytes = container.NO_DIGEST,
) -> container.StreamHeader:
    """The header of the `.tok` file that a media file becomes."""
    return container.StreamHeader(
        width=info.width,
        height=info.height,
        time_base=info.time_base,
        frame_rate=bounded_ratio(info.frame_rate),
        still_image=info.is_image,
        colour=container.Colour(
            primaries=info.colour.primaries,
            transfer=info.colour.transfer,
            matrix=info.colour.matrix,
            full_range=info.colour.full_range,
        ),
        sample_aspect_ratio=bounded_ratio(info.sample_aspect_ratio),
        geometry=geometry,
        max_chunk_frames=1 if info.is_image else chunk_frames,
        probability_model=probability_model,
        probability_digest=probability_digest,
        tokenizer_digest=bytes.fromhex(tokenizer_sha256),
        tokenizer_name=tokenizer_name,
        side_streams=tuple(
            container.SideStreamInfo(
                index=side.index,
                kind=KINDS.get(side.kind, wire.KIND_DATA),
                codec=side.codec,
                language=side.language,
                time_base=side.time_base,
                template=side.template,
            )
            for side in sorted(info.side_streams, key=lambda side: side.index)
        ),
    )


def info_of(header: container.StreamHeader, *, side_streams: bool) -> frames.VideoInfo:
    """What a writer of media files needs to know of a `.tok` file."""
    return frames.VideoInfo(
        width=header.width,
        height=header.height,
        time_base=header.time_base,
        frame_rate=header.frame_rate,
        colour=frames.Colour(
            primaries=header.colour.primaries,
            transfer=header.colour.transfer,
            matrix=header.colour.matrix,
            full_range=header.colour.full_range,
        ),
        sample_aspect_ratio=header.sample_aspect_ratio or Fraction(1),
        is_image=header.still_image,
        side_streams=tuple(
            frames.SideStream(
                index=side.index,
                kind=KIND_NAMES.get(side.kind, "data"),
                codec=side.codec,
                time_base=side.time_base,
                language=side.language,
                template=side.template,
            )
            for side in header.side_streams
            if side_streams
        ),
    )


def packed(packets: Iterable[frames.Packet]) -> list[container.SidePacket]:
    """Packets as the container stores them; their bytes are unchanged."""
    return [
        container.SidePacket(
            stream=packet.stream,
            data=packet.data,
            keyframe=packet.is_keyframe,
            pts=packet.pts,
            dts=packet.dts,
            duration=packet.duration,
        )
        for packet in packets
    ]


def unpacked(packets: Iterable[container.SidePacket]) -> Iterator[frames.Packet]:
    """The inverse of :func:`packed`."""
    for packet in packets:
        yield frames.Packet(
            stream=packet.stream,
            pts=packet.pts,
            dts=packet.dts,
            duration=packet.duration,
            is_keyframe=packet.keyframe,
            data=packet.data,
        )
