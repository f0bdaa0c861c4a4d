"""The numbers of the wire: marks, record types, flags and ceilings (spec sections 2, 6 and 10).

Every id is written out here, as in the spec's tables; none is taken from an iteration order.
"""

from __future__ import annotations

MAGIC = b"\x8eTOK\r\n\x1a\n"
"""First eight bytes of a file (spec section 2.1)."""
VERSION_MAJOR = 1
VERSION_MINOR = 0
SIGNATURE_BYTES = 16
"""Magic, version, reserved bytes and their CRC-32."""

SYNC = b"\x9dTk\xf6"
"""First four bytes of a record (spec section 2.2)."""
RECORD_HEADER_BYTES = 24
RECORD_TRAILER_BYTES = 4

TYPE_HEADER = 0x01
TYPE_CHUNK = 0x02
TYPE_PACKETS = 0x03
TYPE_INDEX = 0x04
TYPE_END = 0x05
TYPE_EXTENSION_FIRST = 0x40
"""0x40 to 0x7F are registered extensions, 0x80 to 0xFF private ones; 0x06 to 0x3F are reserved."""
TYPE_LAST = 0xFF

FLAG_CRITICAL = 0x01
CRITICAL_TYPES = frozenset({TYPE_HEADER, TYPE_CHUNK, TYPE_END})
KNOWN_TYPES = frozenset({TYPE_HEADER, TYPE_CHUNK, TYPE_PACKETS, TYPE_INDEX, TYPE_END})
TYPE_NAMES = {
    TYPE_HEADER: "header",
    TYPE_CHUNK: "chunk",
    TYPE_PACKETS: "packets",
    TYPE_INDEX: "index",
    TYPE_END: "end",
}

HEADER_FLAG_STILL = 0x01
HEADER_FLAG_MOTION = 0x02
HEADER_FLAG_SEVEN_MAPS = 0x04
HEADER_FLAG_PICTURES = 0x08
HEADER_FLAG_RESIDUALS = 0x10
HEADER_FLAG_BLOCKS = 0x20
HEADER_FLAG_MOTION_NETWORK = 0x40
HEADER_FLAG_SECOND_REFERENCE = 0x80
HEADER_FLAGS = 0xFF
"""All that there are."""

PROBABILITY_ADAPTIVE = 0
PROBABILITY_PRIOR = 1

KIND_AUDIO = 1
KIND_SUBTITLE = 2
KIND_DATA = 3
KIND_ATTACHMENT = 4

TIMING_REGULAR = 0
TIMING_LISTED = 1
STEPS_USUAL = 0
STEPS_LISTED = 1
STEP_CODE_BITS = 2

PACKET_KEYFRAME = 0x01
PACKET_HAS_PTS = 0x02
PACKET_HAS_DTS = 0x04

INDEX_FIXED_BYTES = 16
INDEX_ENTRY_BYTES = 20
END_PAYLOAD_BYTES = 8
END_RECORD_BYTES = RECORD_HEADER_BYTES + END_PAYLOAD_BYTES + RECORD_TRAILER_BYTES

# Ceilings of the format (spec section 10.1): a file that goes beyond one is not a tokcodec file.
MAX_PAYLOAD_BYTES = 1 << 28
MAX_HEADER_BYTES = 1 << 26
MAX_CHUNK_FRAMES = 1 << 16
MAX_CHUNK_TOKENS = 1 << 28
MAX_BITS_PER_TOKEN = 64
MAX_LEVELS = 16
MAX_FACTOR = 64
MAX_TEMPLATE_BYTES = 1 << 24
MAX_PACKETS = 1 << 16
MAX_NAME_BYTES = 64
MAX_LANGUAGE_BYTES = 35
MAX_RATIO_TERM = (1 << 31) - 1
MAX_TICKS = 1 << 60
MAX_VARINT = (1 << 63) - 1
MAX_U16 = (1 << 16) - 1
MAX_U32 = (1 << 32) - 1
MAX_U64 = (1 << 64) - 1
DIGEST_BYTES = 32
