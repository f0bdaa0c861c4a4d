"""Side streams (audio, subtitles, attachments): codec parameters to bytes and back, packets to PyAV and back.

FFmpeg's codec parameters have no format of their own, so they travel as a media file that holds one stream
and no packet. Which container takes the codec is found out by trying, in a fixed order; a candidate counts
only if reading it back gives the same codec and the same extra data.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer, OutputContainer
from av.stream import Stream

from tokcodec.errors import MediaError
from tokcodec.frames.info import Packet, SideStream
from tokcodec.frames.streams import AV_ERRORS

MAX_TEMPLATE_BYTES = 16 << 20
"""Templates above this size (fonts, mostly) are not carried."""

_MAX_SECONDS = 10**7  # four months

# Matroska's reader wants one cluster before it believes the header.
_EMPTY_CLUSTER = bytes.fromhex("1f43b67583e78100")

# Without it a template holds random identifiers and the version of FFmpeg, and no two encodes are the same.
_BITEXACT = {"fflags": "+bitexact"}

_FRAGMENTED = {"movflags": "empty_moov+frag_keyframe"}

# (container, muxer options, bytes appended), tried in this order.
_CARRIERS: tuple[tuple[str, dict[str, str], bytes], ...] = (
    ("matroska", {"live": "1"}, _EMPTY_CLUSTER),
    ("mov", _FRAGMENTED, b""),
    ("mp4", _FRAGMENTED, b""),
    ("avi", {}, b""),
)

# MP4 reads the parameters of these out of their first packet.
_DESCRIBED_BY_PACKETS = frozenset({"ac3", "eac3"})

# What a number of channels without a layout is taken for, as decoders do; MP4 insists on a layout.
_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}

_CARRIED_KINDS = frozenset({"audio", "subtitle", "attachment"})


def codec_name(stream: Stream) -> str:
    """The codec of a stream by FFmpeg's canonical name ("mp3", not "mp3float"), or "" where it has none."""
    context = stream.codec_context
    if context is None:
        return ""
    return str(getattr(context.codec, "canonical_name", None) or context.name)


def _extradata(stream: Stream) -> bytes:
    context = stream.codec_context
    if context is None:
        return b""
    return bytes(context.extradata or b"")


def describe_stream(stream: Stream) -> SideStream | None:
    """Describe a stream so that it can be rebuilt without its file; None where no carrier takes it."""
    if stream.type not in _CARRIED_KINDS:
        return None
    time_base = stream.time_base or Fraction(1, 1000)
    language = str(stream.metadata.get("language", ""))
    template = _make_template(stream)
    if template is None:
        return None
    return SideStream(
        index=stream.index,
        kind=str(stream.type),
        codec=codec_name(stream) or str(stream.metadata.get("mimetype", "")),
        time_base=time_base,
        language="" if language == "und" else language,
        template=template,
    )


def _make_template(stream: Stream) -> bytes | None:
    for carrier, options, tail in _CARRIERS:
        buffer = io.BytesIO()
        try:
            with av.open(buffer, "w", format=carrier, container_options=_BITEXACT | options) as container:
                copy_stream(container, stream)
                container.start_encoding()
            data = buffer.getvalue() + tail
            if len(data) > MAX_TEMPLATE_BYTES:
                return None
            with open_template(data) as copy:
                same = copy.streams[0]
                if codec_name(same) == codec_name(stream) and _extradata(same) == _extradata(stream):
                    return data
        except (MediaError, *AV_ERRORS):
            continue
    return None


def copy_stream(container: OutputContainer, stream: Stream, *, time_base: Fraction | None = None) -> Stream:
    """Add a stream of the same codec, language, title and disposition; raises what PyAV raises."""
    added = container.add_stream_from_template(stream)
    for key in ("language", "title", "filename", "mimetype"):
        if key in stream.metadata:
            added.metadata[key] = stream.metadata[key]
    added.disposition = stream.disposition
    context = added.codec_context
    if isinstance(context, AudioCodecContext) and context.layout.name.endswith("channels"):
        layout = _USUAL_LAYOUTS.get(context.layout.nb_channels)
        if layout is not None:
            context.layout = layout
    if time_base is not None:
        added.time_base = time_base
    return added


def fits(stream: Stream, muxer: str) -> bool:
    """Whether a container takes a stream: some refuse it only when they write their header."""
    # MP4 describes its tracks at the very end, unless it is fragmented.
    early = muxer in ("mp4", "mov") and codec_name(stream) not in _DESCRIBED_BY_PACKETS
    options = _FRAGMENTED if early else {}
    try:
        with av.open(io.BytesIO(), "w", format=muxer, container_options=options) as container:
            copy_stream(container, stream)
            container.start_encoding()
    except AV_ERRORS:
        return False
    return True


def open_template(template: bytes) -> InputContainer:
    """Open a template for reading.

    Raises:
        MediaError: The bytes are not a template: another container, no stream, or several.
    """
    demuxer = _demuxer(template)
    try:
        container = av.open(io.BytesIO(template), "r", format=demuxer)
    except AV_ERRORS as error:
        raise MediaError("the description of a side stream is damaged") from error
    if len(container.streams) != 1:
        container.close()
        raise MediaError("the description of a side stream does not hold one stream")
    return container


def _demuxer(template: bytes) -> str:
    # Named outright: a hostile template must not reach FFmpeg's other hundreds of readers.
    if template[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if template[4:8] == b"ftyp":
        return "mov"
    if template[:4] == b"RIFF":
        return "avi"
    raise MediaError("the description of a side stream is damaged")


def from_av(packet: av.Packet[Any]) -> Packet:
    """Copy a demuxed packet."""
    return Packet(
        stream=packet.stream.index,
        pts=packet.pts,
        dts=packet.dts,
        duration=max(0, packet.duration or 0),
        is_keyframe=packet.is_keyframe,
        data=bytes(packet),
    )


def is_plausible(packet: Packet, time_base: Fraction) -> bool:
    """Whether a muxer can be trusted with a packet: some fail for good on empty ones and on wild times."""
    limit = _MAX_SECONDS / time_base
    stamps = [stamp for stamp in (packet.pts, packet.dts) if stamp is not None]
    return (
        bool(packet.data)
        and bool(stamps)
        and all(abs(stamp) <= limit for stamp in stamps)
        and 0 <= packet.duration <= limit
    )


def to_av(packet: Packet, stream: Stream, *, time_base: Fraction, duration: int) -> av.Packet[Any]:
    """Make a packet for a muxer; `time_base` is the unit of its timestamps and of `duration`."""
    made: av.Packet[Any] = av.Packet(packet.data)
    made.stream = stream
    made.time_base = time_base
    made.pts = packet.pts
    made.dts = packet.dts if packet.dts is not None else packet.pts
    made.duration = duration
    made.is_keyframe = packet.is_keyframe
    return made
