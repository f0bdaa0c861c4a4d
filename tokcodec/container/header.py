"""Header payload <-> :class:`StreamHeader` (spec section 4)."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from itertools import pairwise

from tokcodec.container import wire
from tokcodec.container.fields import FieldReader, FieldWriter
from tokcodec.container.items import (
    NO_DIGEST,
    Colour,
    Extension,
    Limits,
    SideStreamInfo,
    StreamHeader,
)
from tokcodec.errors import LimitError, UnsupportedStreamError
from tokcodec.geometry import MAX_SIDE_PIXELS, MOTION_MAPS, MOTION_TOKENS, SPATIAL_FACTOR, TokenGeometry

_UPDATE_HINT = "a newer tokcodec may read it"
_WHERE = "header"


def pack_header(header: StreamHeader) -> bytes:
    """The payload of the header record (spec section 4.1)."""
    out = FieldWriter(where=_WHERE)
    out.uint(2, header.width, "width", low=1, high=MAX_SIDE_PIXELS)
    out.uint(2, header.height, "height", low=1, high=MAX_SIDE_PIXELS)
    out.ratio(header.time_base, "time base")
    out.ratio(header.frame_rate, "frame rate")
    out.ratio(header.sample_aspect_ratio, "sample aspect ratio")
    flags = wire.HEADER_FLAG_STILL if header.still_image else 0
    if header.geometry.motion_tokens not in (0, MOTION_TOKENS):
        out.fail(f"motion blocks of {header.geometry.motion_tokens} tokens")
    if header.geometry.motion_maps not in ((1, MOTION_MAPS) if header.geometry.motion_tokens else (1,)):
        out.fail(f"{header.geometry.motion_maps} motion maps")
    flags |= wire.HEADER_FLAG_MOTION if header.geometry.motion_tokens else 0
    flags |= wire.HEADER_FLAG_SEVEN_MAPS if header.geometry.motion_maps == MOTION_MAPS else 0
    if header.geometry.pictures and header.geometry.motion_maps != MOTION_MAPS:
        out.fail("first pictures by coefficients, and no seven motion maps")
    if header.geometry.pictures and header.geometry.spatial_factor != SPATIAL_FACTOR:
        out.fail(f"first pictures by coefficients, and tokens of {header.geometry.spatial_factor} pixels")
    if header.geometry.residuals and not header.geometry.pictures:
        out.fail("residuals by coefficients, and no such first pictures")
    if header.geometry.intra and not header.geometry.pictures:
        out.fail("first pictures by blocks, and none by coefficients")
    if header.geometry.motion_network and header.geometry.motion_maps != MOTION_MAPS:
        out.fail("motion maps by a network, and no seven motion maps")
    flags |= wire.HEADER_FLAG_PICTURES if header.geometry.pictures else 0
    flags |= wire.HEADER_FLAG_RESIDUALS if header.geometry.residuals else 0
    flags |= wire.HEADER_FLAG_BLOCKS if header.geometry.intra else 0
    if header.geometry.second_reference and not header.geometry.pictures:
        out.fail("a second reference, and no first pictures by coefficients")
    flags |= wire.HEADER_FLAG_MOTION_NETWORK if header.geometry.motion_network else 0
    flags |= wire.HEADER_FLAG_SECOND_REFERENCE if header.geometry.second_reference else 0
    out.uint(1, flags, "flags")
    out.uint(1, header.colour.primaries, "colour primaries")
    out.uint(1, header.colour.transfer, "transfer characteristics")
    out.uint(1, header.colour.matrix, "matrix coefficients")
    out.uint(1, int(header.colour.full_range), "full range flag", high=1)
    _put_geometry(out, header.geometry)
    out.uint(4, header.max_chunk_frames, "frames a chunk", low=1, high=wire.MAX_CHUNK_FRAMES)
    out.uint(1, header.probability_model, "probability model", high=wire.PROBABILITY_PRIOR)
    out.put(header.probability_digest, "probability model digest", size=wire.DIGEST_BYTES)
    if problem := _digest_problem(header.probability_model, header.probability_digest):
        out.fail(problem)
    out.put(header.tokenizer_digest, "tokenizer digest", size=wire.DIGEST_BYTES)
    out.text(header.tokenizer_name, "tokenizer name", low=1, high=wire.MAX_NAME_BYTES)
    _put_side_streams(out, header.side_streams)
    _put_extensions(out, header.extensions)
    return out.finish(high=wire.MAX_HEADER_BYTES)


def parse_header(payload: bytes, *, offset: int, limits: Limits, understood: Collection[int]) -> StreamHeader:
    """The header in a payload that begins at byte `offset` of the file (spec section 4.1)."""
    data = FieldReader(payload, offset=offset, where=_WHERE)
    width = data.uint(2, "width", low=1, high=MAX_SIDE_PIXELS)
    height = data.uint(2, "height", low=1, high=MAX_SIDE_PIXELS)
    if width * height > limits.picture_pixels:
        raise LimitError(
            f"pictures of {width}x{height} pixels, the limit is {limits.picture_pixels} pixels",
            where=_WHERE,
            offset=offset,
            hint="raise the limit if you trust the file",
        )
    time_base = _take_time_base(data, "time base")
    frame_rate = data.ratio("frame rate")
    sample_aspect_ratio = data.ratio("sample aspect ratio")
    flags = data.uint(1, "flags", high=wire.HEADER_FLAGS)
    if flags & wire.HEADER_FLAG_SEVEN_MAPS and not flags & wire.HEADER_FLAG_MOTION:
        data.fail("seven motion maps, and no motion maps")
    if flags & wire.HEADER_FLAG_PICTURES and not flags & wire.HEADER_FLAG_SEVEN_MAPS:
        data.fail("first pictures by coefficients, and no seven motion maps")
    if flags & wire.HEADER_FLAG_RESIDUALS and not flags & wire.HEADER_FLAG_PICTURES:
        data.fail("residuals by coefficients, and no such first pictures")
    if flags & wire.HEADER_FLAG_BLOCKS and not flags & wire.HEADER_FLAG_PICTURES:
        data.fail("first pictures by blocks, and none by coefficients")
    if flags & wire.HEADER_FLAG_MOTION_NETWORK and not flags & wire.HEADER_FLAG_SEVEN_MAPS:
        data.fail("motion maps by a network, and no seven motion maps")
    if flags & wire.HEADER_FLAG_SECOND_REFERENCE and not flags & wire.HEADER_FLAG_PICTURES:
        data.fail("a second reference, and no first pictures by coefficients")
    colour = Colour(
        primaries=data.uint(1, "colour primaries"),
        transfer=data.uint(1, "transfer characteristics"),
        matrix=data.uint(1, "matrix coefficients"),
        full_range=bool(data.uint(1, "full range flag", high=1)),
    )
    geometry = _take_geometry(data, flags)
    max_chunk_frames = data.uint(4, "frames a chunk", low=1, high=wire.MAX_CHUNK_FRAMES)
    probability_model = data.uint(1, "probability model")
    if probability_model > wire.PROBABILITY_PRIOR:
        raise UnsupportedStreamError(
            f"probability model {probability_model} is not known",
            where=_WHERE,
            offset=offset,
            hint=_UPDATE_HINT,
        )
    probability_digest = data.take(wire.DIGEST_BYTES, "probability model digest")
    if problem := _digest_problem(probability_model, probability_digest):
        data.fail(problem)
    tokenizer_digest = data.take(wire.DIGEST_BYTES, "tokenizer digest")
    header = StreamHeader(
        width=width,
        height=height,
        time_base=time_base,
        frame_rate=frame_rate,
        still_image=bool(flags & wire.HEADER_FLAG_STILL),
        colour=colour,
        sample_aspect_ratio=sample_aspect_ratio,
        geometry=geometry,
        max_chunk_frames=max_chunk_frames,
        probability_model=probability_model,
        probability_digest=probability_digest,
        tokenizer_digest=tokenizer_digest,
        tokenizer_name=data.text("tokenizer name", low=1, high=wire.MAX_NAME_BYTES),
        side_streams=_take_side_streams(data),
        extensions=_take_extensions(data, offset=offset, understood=understood),
    )
    data.finish()
    if header.chunk_tokens(1) > limits.picture_tokens:
        raise LimitError(
            f"{header.chunk_tokens(1)} tokens in a picture, the limit is {limits.picture_tokens}",
            where=_WHERE,
            offset=offset,
            hint="raise the limit if you trust the file",
        )
    return header


def _digest_problem(model: int, digest: bytes) -> str | None:
    if (model == wire.PROBABILITY_ADAPTIVE) != (digest == NO_DIGEST):
        return "the probability model's digest has to be zero for adaptive, and for nothing else"
    return None


def _take_time_base(data: FieldReader, name: str) -> Fraction:
    value = data.ratio(name)
    if value is None:
        data.fail(f"{name} is 0/0")
    return value


def _put_geometry(out: FieldWriter, geometry: TokenGeometry) -> None:
    bits = geometry.bits_per_token
    out.uint(1, bits, "bits per token", low=1, high=wire.MAX_BITS_PER_TOKEN)
    out.uint(1, geometry.spatial_factor, "spatial factor", low=1, high=wire.MAX_FACTOR)
    out.uint(1, geometry.temporal_factor, "temporal factor", low=1, high=wire.MAX_FACTOR)
    out.uint(1, geometry.block_tokens, "block tokens", low=1, high=wire.MAX_FACTOR)
    out.uint(1, len(geometry.level_bits), "number of levels", low=2, high=wire.MAX_LEVELS)
    for level in geometry.level_bits:
        out.uint(1, level, "bits of a level", high=bits)
    if problem := _levels_problem(geometry):
        out.fail(problem)


def _take_geometry(data: FieldReader, flags: int) -> TokenGeometry:
    bits = data.uint(1, "bits per token", low=1, high=wire.MAX_BITS_PER_TOKEN)
    spatial_factor = data.uint(1, "spatial factor", low=1, high=wire.MAX_FACTOR)
    if flags & wire.HEADER_FLAG_PICTURES and spatial_factor != SPATIAL_FACTOR:
        data.fail(f"first pictures by coefficients, and tokens of {spatial_factor} pixels")
    temporal_factor = data.uint(1, "temporal factor", low=1, high=wire.MAX_FACTOR)
    block_tokens = data.uint(1, "block tokens", low=1, high=wire.MAX_FACTOR)
    count = data.uint(1, "number of levels", low=2, high=wire.MAX_LEVELS)
    geometry = TokenGeometry(
        bits_per_token=bits,
        level_bits=tuple(data.take(count, "level table")),
        spatial_factor=spatial_factor,
        temporal_factor=temporal_factor,
        block_tokens=block_tokens,
        motion_tokens=MOTION_TOKENS if flags & wire.HEADER_FLAG_MOTION else 0,
        motion_maps=MOTION_MAPS if flags & wire.HEADER_FLAG_SEVEN_MAPS else 1,
        pictures=bool(flags & wire.HEADER_FLAG_PICTURES),
        residuals=bool(flags & wire.HEADER_FLAG_RESIDUALS),
        intra=bool(flags & wire.HEADER_FLAG_BLOCKS),
        motion_network=bool(flags & wire.HEADER_FLAG_MOTION_NETWORK),
        second_reference=bool(flags & wire.HEADER_FLAG_SECOND_REFERENCE),
    )
    if problem := _levels_problem(geometry):
        data.fail(problem)
    return geometry


def _levels_problem(geometry: TokenGeometry) -> str | None:
    table = geometry.level_bits
    rising = all(a < b for a, b in pairwise(table))
    if table[0] != 0 or table[-1] != geometry.bits_per_token or not rising:
        return f"level table {table} does not rise from 0 to {geometry.bits_per_token}"
    return None


def _put_side_streams(out: FieldWriter, streams: tuple[SideStreamInfo, ...]) -> None:
    out.uint(1, len(streams), "number of side streams")
    low = 0
    for stream in streams:
        out.uint(2, stream.index, "side stream index", low=low)
        out.uint(1, stream.kind, "side stream kind", low=1)
        out.zeros(1)
        out.ratio(stream.time_base, "side stream time base")
        out.text(stream.codec, "side stream codec", low=0, high=wire.MAX_NAME_BYTES)
        out.text(stream.language, "side stream language", low=0, high=wire.MAX_LANGUAGE_BYTES)
        out.block(stream.template, "side stream template", high=wire.MAX_TEMPLATE_BYTES)
        low = stream.index + 1


def _take_side_streams(data: FieldReader) -> tuple[SideStreamInfo, ...]:
    streams: list[SideStreamInfo] = []
    low = 0
    for _ in range(data.uint(1, "number of side streams")):
        index = data.uint(2, "side stream index", low=low)
        kind = data.uint(1, "side stream kind", low=1)
        data.zeros(1)
        time_base = _take_time_base(data, "side stream time base")
        codec = data.text("side stream codec", low=0, high=wire.MAX_NAME_BYTES)
        language = data.text("side stream language", low=0, high=wire.MAX_LANGUAGE_BYTES)
        template = data.block("side stream template", high=wire.MAX_TEMPLATE_BYTES)
        streams.append(
            SideStreamInfo(
                index=index,
                kind=kind,
                codec=codec,
                language=language,
                time_base=time_base,
                template=template,
            )
        )
        low = index + 1
    return tuple(streams)


def _put_extensions(out: FieldWriter, extensions: tuple[Extension, ...]) -> None:
    out.uint(2, len(extensions), "number of header extensions")
    for extension in extensions:
        out.uint(1, extension.type, "header extension type", low=wire.TYPE_EXTENSION_FIRST)
        out.uint(1, wire.FLAG_CRITICAL if extension.critical else 0, "header extension flags")
        out.block(extension.data, "header extension", high=wire.MAX_HEADER_BYTES)


def _take_extensions(data: FieldReader, *, offset: int, understood: Collection[int]) -> tuple[Extension, ...]:
    extensions: list[Extension] = []
    for _ in range(data.uint(2, "number of header extensions")):
        kind = data.uint(1, "header extension type", low=1)
        critical = bool(data.uint(1, "header extension flags", high=wire.FLAG_CRITICAL))
        content = data.block("header extension", high=wire.MAX_HEADER_BYTES)
        if critical and kind not in understood:
            raise UnsupportedStreamError(
                f"header extension 0x{kind:02X} is critical and not known",
                where=_WHERE,
                offset=offset,
                hint=_UPDATE_HINT,
            )
        if kind >= wire.TYPE_EXTENSION_FIRST:
            extensions.append(Extension(type=kind, data=content, critical=critical))
    return tuple(extensions)
