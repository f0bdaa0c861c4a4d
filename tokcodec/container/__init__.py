"""Records <-> `.tok` bytes (spec sections 1 to 6 and 9 to 11); standard library only.

    StreamHeader, ChunkRecord, SidePacket, Extension
        | ContainerWriter: header, records, index and end, front to back
        v
    .tok bytes, on disk or through a pipe
        | read_stream: every whole record, Damage for each stretch that is lost
        v
    ChunkRecord | SidePacketBatch | Extension | Damage, and a StreamSummary

What is inside a chunk's `token_data` is the business of `bits.py` (spec section 7).
"""

from tokcodec.container.index import find_chunk_index, read_stream_from
from tokcodec.container.items import (
    DEFAULT_LIMITS,
    NO_DIGEST,
    ChunkEntry,
    ChunkIndex,
    ChunkRecord,
    Colour,
    Damage,
    Extension,
    Item,
    Limits,
    SidePacket,
    SidePacketBatch,
    SideStreamInfo,
    StreamHeader,
    StreamSummary,
)
from tokcodec.container.reader import StreamReader, read_stream
from tokcodec.container.wire import (
    KIND_ATTACHMENT,
    KIND_AUDIO,
    KIND_DATA,
    KIND_SUBTITLE,
    MAX_CHUNK_FRAMES,
    MAX_TEMPLATE_BYTES,
    PROBABILITY_ADAPTIVE,
    PROBABILITY_PRIOR,
)
from tokcodec.container.writer import ContainerWriter

__all__ = [
    "DEFAULT_LIMITS",
    "KIND_ATTACHMENT",
    "KIND_AUDIO",
    "KIND_DATA",
    "KIND_SUBTITLE",
    "MAX_CHUNK_FRAMES",
    "MAX_TEMPLATE_BYTES",
    "NO_DIGEST",
    "PROBABILITY_ADAPTIVE",
    "PROBABILITY_PRIOR",
    "ChunkEntry",
    "ChunkIndex",
    "ChunkRecord",
    "Colour",
    "ContainerWriter",
    "Damage",
    "Extension",
    "Item",
    "Limits",
    "SidePacket",
    "SidePacketBatch",
    "SideStreamInfo",
    "StreamHeader",
    "StreamReader",
    "StreamSummary",
    "find_chunk_index",
    "read_stream",
    "read_stream_from",
]
