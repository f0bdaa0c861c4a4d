"""Damaged and forged files through the whole decoder: whole chunks and a report, or an error; bounded in cost."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import make_vectors
import numpy as np
import pytest
import tiny_model
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_vectors import CHUNK, SYNC, Edit, File, u32
from numpy.typing import NDArray
from record_spans import spans

import tokcodec.bits
import tokcodec.coders
from tokcodec.codec import Codec
from tokcodec.container import DEFAULT_LIMITS
from tokcodec.errors import CorruptStreamError, LimitError, TokcodecError
from tokcodec.inspection import Inspection, survey
from tokcodec.results import DecodedVideo
from tokcodec.tokenizer.stream import StreamDecoder
from tokcodec.tokens import DEFAULT_GEOMETRY, Picture, TokenChunk

CHUNK_FRAMES = (5, 1)
MAX_PEAK_BYTES = 64 << 20
MAX_CPU_SECONDS = 20
"""Far above what anything here takes, so that a busy machine passes and quadratic work does not."""


class RememberingDecoder(StreamDecoder):
    """Gives the frames of tokens that it saw before without running the network again."""

    known: dict[tuple[bytes, ...], tuple[NDArray[np.uint8], torch.Tensor | None]]
    past: tuple[bytes, ...] = ()

    def start_chunk(self) -> None:
        super().start_chunk()
        self.past = ()

    def step(
        self,
        indices: NDArray[np.uint64],
        kept_bits: NDArray[np.uint8],
        vectors: NDArray[np.int16],
        *,
        frames: int | None = None,
        picture: Picture | None = None,
        residual: Picture | None = None,
    ) -> NDArray[np.uint8]:
        said = [
            b"" if each is None else bytes([each.scale]) + each.coefficients.tobytes() for each in (picture, residual)
        ]
        given = (indices.tobytes(), kept_bits.tobytes(), vectors.tobytes(), repr((self._size, frames)).encode(), *said)
        self.past = (*self.past, *given)
        if self.past not in self.known:
            self.known[self.past] = (
                super().step(indices, kept_bits, vectors, frames=frames, picture=picture, residual=residual),
                self._state,
            )
        pixels, self._state = self.known[self.past]
        return pixels


@dataclass(frozen=True, kw_only=True)
class Small:
    """A small file and its undamaged decode."""

    data: bytes
    codec: Codec
    frames: NDArray[np.uint8]
    spans: list[tuple[int, int]]
    """Of header, chunk 0, chunk 1, index and end."""

    def frames_of(self, *chunks: int) -> NDArray[np.uint8]:
        first = np.split(self.frames, np.cumsum(CHUNK_FRAMES)[:-1])
        return np.concatenate([first[number] for number in chunks])


def refusal_of(run: Callable[[], object]) -> TokcodecError | None:
    """The error with which a call refuses its input; any other exception is a failure of the test."""
    try:
        run()
    except TokcodecError as error:
        return error
    return None


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    weights = tiny_model.write_weights(tmp_path_factory.mktemp("weights"))
    with pytest.MonkeyPatch.context() as patch:
        RememberingDecoder.known = {}
        patch.setattr(tokcodec.coders, "StreamDecoder", RememberingDecoder)
        codec = Codec(model=str(weights), weights=weights, device="cpu")
        y, x = np.mgrid[:8, :16]
        picture = [
            np.stack([x * 13 + k * 7, y * 25 + x, x * y + k * 40], axis=-1) % 256 for k in range(sum(CHUNK_FRAMES))
        ]
        data = codec.encode_frames(np.stack(picture).astype(np.uint8), quality=2, effort=0, chunk_frames=5)
        frames = codec.decode_frames(data).frames
        yield Small(data=data, codec=codec, frames=frames, spans=spans(data))


@pytest.fixture
def equal_bytes_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For damage at every place: what is whole is the same bytes each time, and their CRC is checked each time."""
    monkeypatch.setattr(tokcodec.bits, "decode_tokens", functools.cache(tokcodec.bits.decode_tokens))


def check(small: Small, data: bytes, expected: tuple[int, ...], *, refused: bool = False) -> Inspection | None:
    """Decoding and verifying give exactly the chunks that are expected, and a report; or an error."""
    if refused:
        with pytest.raises(TokcodecError) as verified:
            survey(io.BytesIO(data), check_tokens=True)
        with pytest.raises(TokcodecError) as decoded:
            small.codec.decode_frames(data)
        for error in (verified.value, decoded.value):
            assert error.exit_code > 2
            assert error.offset is not None
            assert error.hint
        return None
    report = survey(io.BytesIO(data), check_tokens=True)
    assert not report.complete
    assert report.damages
    assert report.chunks == len(expected)
    assert report.frames == sum(CHUNK_FRAMES[number] for number in expected)
    if expected:
        video = small.codec.decode_frames(data)
        assert np.array_equal(video.frames, small.frames_of(*expected))
        assert video.damages == report.damages
    else:
        with pytest.raises(CorruptStreamError) as caught:
            small.codec.decode_frames(data)
        assert caught.value.offset is not None
        assert caught.value.hint
    return report


# --- damage: the bytes are not those that were written ---


def test_the_small_file_is_what_the_tests_take_it_for(small: Small) -> None:
    assert len(small.data) < 700
    assert len(small.spans) == 5
    report = survey(io.BytesIO(small.data), check_tokens=True)
    assert report.complete
    assert (report.chunks, report.frames) == (2, 6)
    first, second = small.frames_of(0), small.frames_of(1)
    assert first.std() > 5
    assert not np.array_equal(first[0], second[0])


@pytest.mark.usefixtures("equal_bytes_are_decoded_once")
def test_truncated_at_every_byte(small: Small) -> None:
    _, header_end = small.spans[0]
    for size in range(len(small.data)):
        whole = tuple(number for number in (0, 1) if small.spans[1 + number][1] <= size)
        report = check(small, small.data[:size], whole, refused=size < header_end)
        if report is not None:
            (damage,) = report.damages
            assert damage.offset + damage.length == size


@pytest.mark.usefixtures("equal_bytes_are_decoded_once")
def test_every_bit_flipped(small: Small) -> None:
    _, header_end = small.spans[0]
    for bit in range(8 * len(small.data)):
        at = bit // 8
        bad = bytearray(small.data)
        bad[at] ^= 1 << (bit % 8)
        whole = tuple(n for n in (0, 1) if not small.spans[1 + n][0] <= at < small.spans[1 + n][1])
        report = check(small, bytes(bad), whole, refused=at < header_end)
        if report is not None:
            (damage,) = report.damages
            assert damage.offset <= at < damage.offset + damage.length
            assert [n for n in (0, 1) if n not in whole] == list(damage.missing_chunks)


def test_every_bit_of_the_tokens_flipped_under_right_crcs(small: Small) -> None:
    """Only the CRC of the tokens is left to notice it."""
    start, stop = small.spans[1]
    size = int.from_bytes(small.data[start + 44 : start + 48], "little")
    for bit in range(8 * (stop - 4 - size), 8 * (stop - 4)):
        bad = bytearray(small.data)
        bad[bit // 8] ^= 1 << (bit % 8)
        bad[stop - 4 : stop] = u32(crc32(bad[start + 24 : stop - 4]))
        report = check(small, bytes(bad), (1,))
        assert report is not None
        (damage,) = report.damages
        assert list(damage.missing_chunks) == [0]
        assert start <= damage.offset < stop


@pytest.mark.usefixtures("equal_bytes_are_decoded_once")
def test_every_byte_cut_out(small: Small) -> None:
    _, header_end = small.spans[0]
    for at in range(len(small.data)):
        whole = tuple(n for n in (0, 1) if not small.spans[1 + n][0] <= at < small.spans[1 + n][1])
        check(small, small.data[:at] + small.data[at + 1 :], whole, refused=at < header_end)


# --- forgery: sizes that are not there ---


def forged(name: str, edit: Edit, **header: object) -> bytes:
    made = File(edits={name: edit}, side_streams=(make_vectors.AUDIO,), **header)
    made.add_chunk()
    made.add_packets(make_vectors.packet(1, b"sound", pts=0))
    return bytes(made.close().data)


def zeros(frames: int, width: int, height: int, **header: object) -> bytes:
    """A few hundred bytes that stand for very many tokens of no bits."""
    made = File(width=width, height=height, **header)
    made.add_chunk(frames=frames, levels=0)
    return bytes(made.close().data)


def steps_of_nothing(frames: int, *, maps: int = 0) -> bytes:
    """A few hundred bytes that stand for 4096 tokens of no bits every four frames (made without making them)."""
    made = File(width=512, height=512, max_chunk_frames=65536, motion_maps=maps)
    steps = DEFAULT_GEOMETRY.steps(frames)
    geometry = replace(DEFAULT_GEOMETRY, motion_tokens=2 if maps else 0, motion_maps=max(1, maps))
    one = TokenChunk(
        indices=np.zeros((steps, 1, 1), np.uint64),
        levels=np.zeros((steps, 1, 1), np.uint8),
        vectors=np.zeros((steps, maps, min(1, maps), 2), np.int16),
        geometry=geometry,
    )
    crc = 0
    for size in [*([8 * 4096] * steps), 256 * steps, *([4 * maps * 32 * 32] * steps)]:
        crc = crc32(bytes(size), crc)
    made.edits["chunk0"] = Edit(raw={"tokens_crc": u32(crc)})
    made.add_chunk(pts=range(frames), tokens=one)
    return bytes(made.close().data)


def claimed(frames: int, width: int, height: int, **header: object) -> bytes:
    """A file that says it holds more tokens than anybody has memory for."""
    made = File(width=width, height=height, **header)
    few = make_vectors.make_tokens(make_vectors.DEFAULT_HEADER, 1, levels=0, seed=1)
    made.add_chunk(pts=range(frames), tokens=few)
    return bytes(made.close().data)


def nested(count: int) -> bytes:
    """Record headers inside each other, each of which claims all that follows."""
    made = File()
    made.add_chunk()
    start = made.records["chunk0"][0]
    key = bytes(made.data[start - 4 : start])
    head = SYNC + bytes([CHUNK, 1, 0, 0]) + u32(1) + u32(0)
    bomb = b""
    for number in range(count, 0, -1):
        part = head + u32(24 * number + 1000)
        bomb += part + u32(crc32(part + key))
    return bytes(made.data[:start]) + bomb + bytes(24 * count + 2000)


HOSTILE = {
    "largest picture": claimed(1, 16384, 16384),
    "most frames": claimed(65536, 8192, 8192, max_chunk_frames=65536),
    "smallest tokens": claimed(2, 8192, 8192, spatial_factor=1, temporal_factor=1),
    "largest blocks": claimed(4, 16384, 4096, spatial_factor=1, block_tokens=64, temporal_factor=1),
    "payload that is not there": forged("chunk0", Edit(size=1 << 26)),
    "largest payload": forged("chunk0", Edit(size=(1 << 32) - 1)),
    "header that is not there": forged("header", Edit(size=1 << 26)),
    "template that is not there": forged("header", Edit(raw={"side0.template": u32(1 << 24)})),
    "extensions that are not there": forged("header", Edit(raw={"extension_count": b"\xff\xff"})),
    "side streams that are not there": forged("header", Edit(raw={"side_stream_count": b"\xff"})),
    "frames that are not there": forged(
        "chunk0", Edit(raw={"frame_count": u32(65536), "timing_mode": b"\1"}), max_chunk_frames=65536
    ),
    "tokens that are not there": forged("chunk0", Edit(raw={"token_data_size": u32((1 << 32) - 1)})),
    "packets that are not there": forged("packets0", Edit(raw={"packet_count": u32(65536)})),
    "packet that is not there": forged("packets0", Edit(raw={"0.size": make_vectors.varint(1 << 28)})),
    "index that is not there": forged("index", Edit(raw={"total_chunks": u32((1 << 32) - 1)})),
    "four thousand million chunks missing": forged("index", Edit(sequence=(1 << 32) - 1, chunks_before=(1 << 32) - 1)),
    "a hundred thousand tokens": zeros(9, 256, 128, spatial_factor=1, temporal_factor=1, bits_per_token=18),
    "as many tokens as a chunk may have": steps_of_nothing(4 * 4095 + 1),
    "steps of nothing": steps_of_nothing(63997),
    "as many tokens, and seven motion maps": steps_of_nothing(4 * 4095 + 1, maps=7),
    "steps of nothing, and seven motion maps": steps_of_nothing(63997, maps=7),
    "sync markers only": bytes(File().data) + SYNC * 30_000,
    "records inside each other": nested(3000),
    "bytes after the end": zeros(1, 8, 8) + bytes(1 << 20),
}

PEAK_BYTES = {
    "as many tokens as a chunk may have": 10 * DEFAULT_LIMITS.chunk_tokens,
    "as many tokens, and seven motion maps": 24 * DEFAULT_LIMITS.chunk_tokens,
}
"""Where it is more than MAX_PEAK_BYTES: what `Limits` says that tokens take."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_take_little_memory_and_time(name: str) -> None:
    started = time.process_time()
    tracemalloc.start()
    try:
        error = refusal_of(lambda: survey(io.BytesIO(HOSTILE[name]), check_tokens=True))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error is None or (error.exit_code > 2 and error.offset is not None)
    assert peak < PEAK_BYTES.get(name, MAX_PEAK_BYTES)
    assert time.process_time() - started < MAX_CPU_SECONDS


def test_a_chunk_may_have_as_many_tokens_as_the_limit_says() -> None:
    report = survey(io.BytesIO(HOSTILE["as many tokens as a chunk may have"]), check_tokens=True)
    assert report.complete
    assert (report.frames // 4 + 1) * 64 * 64 == DEFAULT_LIMITS.chunk_tokens
    eight_k = 65, 4320 // 8, 7680 // 8
    assert DEFAULT_GEOMETRY.steps(eight_k[0]) * eight_k[1] * eight_k[2] <= DEFAULT_LIMITS.chunk_tokens


@pytest.mark.parametrize(
    "name", ["largest picture", "smallest tokens", "steps of nothing", "records inside each other"]
)
def test_what_is_beyond_the_limits_says_so(name: str) -> None:
    with pytest.raises(LimitError) as caught:
        survey(io.BytesIO(HOSTILE[name]), check_tokens=True)
    assert caught.value.exit_code == LimitError.exit_code
    assert caught.value.hint


SURVEY_ALL = """
import io, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from pathlib import Path
from tokcodec.errors import TokcodecError
from tokcodec.inspection import survey
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        survey(io.BytesIO(path.read_bytes()), check_tokens=True)
    except TokcodecError as error:
        print(type(error).__name__)
    else:
        print("read")
assert "torch" not in sys.modules
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a process are kept by Linux")
def test_hostile_files_in_a_process_of_one_gibibyte(tmp_path: Path) -> None:
    for number, data in enumerate(HOSTILE.values()):
        (tmp_path / f"{number:02d}.tok").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", SURVEY_ALL, str(tmp_path)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split()
    assert len(answers) == len(HOSTILE)
    assert set(answers) == {"read", "CorruptStreamError", "LimitError"}


def test_hostile_headers_do_not_reach_the_network(small: Small) -> None:
    for name in ("largest picture", "most frames", "smallest tokens", "frames that are not there"):
        with pytest.raises(TokcodecError) as caught:
            small.codec.decode_frames(HOSTILE[name])
        assert caught.value.exit_code > 2


# --- anything at all ---


def verify_and_decode(small: Small, data: bytes) -> DecodedVideo | None:
    """What decodes, if anything does; nothing but a TokcodecError may come out instead."""
    error = refusal_of(lambda: survey(io.BytesIO(data), check_tokens=True))
    assert error is None or error.exit_code > 2
    decoded: list[DecodedVideo] = []
    error = refusal_of(lambda: decoded.append(small.codec.decode_frames(data)))
    assert error is None or error.exit_code > 2
    return decoded[0] if decoded else None


def decodes_or_says_why(small: Small, data: bytes) -> None:
    """Every frame that comes out is one of the undamaged file, and what is missing is reported."""
    video = verify_and_decode(small, data)
    if video is not None:
        sets = [(0,), (1,), (0, 1)]
        assert any(np.array_equal(video.frames, small.frames_of(*chunks)) for chunks in sets)
        assert video.damages or data == small.data


@settings(max_examples=200)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptStreamError):
        survey(io.BytesIO(data), check_tokens=True)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rest=st.binary(max_size=300), keep=st.integers(0, 4))
def test_random_bytes_after_a_good_beginning(small: Small, rest: bytes, keep: int) -> None:
    start = [16, *(stop for _, stop in small.spans)][keep]
    decodes_or_says_why(small, small.data[:start] + rest)


@settings(max_examples=300)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 700), st.sampled_from([0, 1, 2, 5, 24, 60]), st.binary(max_size=6)),
        min_size=1,
        max_size=4,
    )
)
def test_mutated_files(small: Small, edits: list[tuple[int, int, bytes]]) -> None:
    data = small.data
    for at, cut, new in edits:
        data = data[:at] + new + data[at + cut :]
    decodes_or_says_why(small, data)


@settings(max_examples=200)
@given(
    record=st.integers(0, 4),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_forged_payloads(small: Small, record: int, edits: list[tuple[int, int]]) -> None:
    """Any payload with right CRCs; what it says may be wrong, but never raises anything else."""
    data = bytearray(small.data)
    start, stop = small.spans[record]
    for at, value in edits:
        data[start + 24 + at % (stop - start - 28)] = value
    data[stop - 4 : stop] = u32(crc32(data[start + 24 : stop - 4]))
    if record == 0:
        key = bytes(data[stop - 4 : stop])
        for at, _ in small.spans[1:]:
            data[at + 20 : at + 24] = u32(crc32(data[at : at + 20] + key))
    if record == 0:
        # A forged header may ask for large pictures; what they cost the network is a matter of the limits.
        error = refusal_of(lambda: survey(io.BytesIO(bytes(data)), check_tokens=True))
        assert error is None or error.exit_code > 2
        return
    video = verify_and_decode(small, bytes(data))
    if video is not None:
        assert video.frames.shape[1:] == small.frames.shape[1:]
