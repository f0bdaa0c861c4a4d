"""Chunks that are coded beside each other, by other processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any, cast

import pytest
from media import make_film, make_video

from tokcodec import Codec, workers
from tokcodec.container import ChunkRecord, SidePacketBatch, StreamReader, read_stream
from tokcodec.counts import Stopwatch
from tokcodec.decoding import StreamDecoding
from tokcodec.errors import CorruptStreamError, LimitError, ModelError, UsageError
from tokcodec.frames import Frame, Packet
from tokcodec.rate import Rate
from tokcodec.results import CodecResult
from tokcodec.workers import DecodeTask, Workers, processes_for

HAS_SERVER = pytest.mark.skipif("forkserver" not in get_all_start_methods(), reason="no such server on this system")


@pytest.fixture(scope="module")
def alone() -> Codec:
    return Codec(device="cpu")


@pytest.fixture(scope="module")
def beside() -> Codec:
    return Codec(device="cpu", jobs=2)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    make_film(path)
    return path


@pytest.fixture(scope="module")
def coded(alone: Codec, film: Path) -> Path:
    """The film in chunks of five frames."""
    path = film.parent / "film.tok"
    alone.encode(film, path, quality=3, chunk_frames=5)
    return path


def decoded(codec: Codec, source: Path, target: Path, **options: Any) -> tuple[CodecResult, bytes]:
    result = codec.decode(source, target, **options)
    return result, target.read_bytes()


# --- how many there are ---


def test_by_default_as_many_as_processors_for_a_video_that_is_long_enough(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "processors", lambda: 4)
    monkeypatch.setattr(workers, "memory_bytes", lambda: 1 << 40)
    size = {"chunk_frames": 65, "frame_bytes": 3 * 640 * 360}
    assert processes_for(None, frames=None, **size) == 1, "nobody knows how long it is"
    assert processes_for(None, frames=2 * 65 - 1, **size) == 1, "done before they have started"
    assert processes_for(None, frames=2 * 65, **size) == 2
    assert processes_for(None, frames=3 * 65, **size) == 3, "there is nothing for a fourth"
    assert processes_for(None, frames=3000, **size) == 4
    monkeypatch.setattr(workers, "processors", lambda: 200)
    assert processes_for(None, frames=30000, **size) == workers.MOST_PROCESSES


def test_what_was_asked_for_is_done_where_there_is_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "memory_bytes", lambda: 16 << 30)
    found = {
        width: [
            processes_for(asked, frames=None, chunk_frames=65, frame_bytes=3 * width * height) for asked in (1, 2, 50)
        ]
        for width, height in ((640, 360), (1920, 1080), (7680, 4320))
    }
    assert found == {640: [1, 2, 6], 1920: [1, 2, 3], 7680: [1, 1, 1]}
    monkeypatch.setattr(workers, "memory_bytes", lambda: 1 << 50)
    assert processes_for(1000, frames=None, chunk_frames=65, frame_bytes=3 * 640 * 360) == workers.MOST_ASKED


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2", True])
def test_jobs_that_make_no_sense(jobs: Any):
    with pytest.raises(UsageError, match="jobs is a whole number"):
        Codec(device="cpu", jobs=jobs)


def test_threads_are_shared_and_a_persons_choice_stands(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert workers.processors() == 6
    before = dict(os.environ)
    with workers._few_threads(2):
        assert [os.environ[name] for name in workers._THREADS] == ["2"] * 3
    assert dict(os.environ) == before
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert workers.processors() > 0


# --- the same files ---


def test_the_file_is_the_one_that_one_process_makes(beside: Codec, film: Path, coded: Path, tmp_path: Path):
    """Video, audio and subtitles, whatever is done first."""
    seen: list[int] = []
    result = beside.encode(
        film, tmp_path / "a.tok", quality=3, chunk_frames=5, progress=lambda done, total: seen.append(done)
    )
    assert result.chunks > 3
    assert result.tokenizer_seconds > 0
    assert result.entropy_coding_seconds > 0
    assert seen == list(range(1, result.frames + 1))
    items = []
    for path in (coded, tmp_path / "a.tok"):
        with path.open("rb") as part:
            items.append([item for item in read_stream(part) if isinstance(item, (ChunkRecord, SidePacketBatch))])
    assert items[0] == items[1], "packets stand where they stood"
    assert {type(item) for item in items[0]} == {ChunkRecord, SidePacketBatch}


def test_the_pictures_and_the_damage_are_those_of_one_process(alone: Codec, beside: Codec, coded: Path, tmp_path: Path):
    """Of a part of the video, with a chunk that is not what was written."""
    data = bytearray(coded.read_bytes())
    with coded.open("rb") as part:
        reader = read_stream(part)
        places = [(reader.item_offset, item) for item in reader if isinstance(item, ChunkRecord)]
    data[places[1][0] + 40] ^= 1
    (tmp_path / "damaged.tok").write_bytes(data)
    results = [
        decoded(codec, tmp_path / "damaged.tok", tmp_path / f"{number}.y4m", start_seconds=0.1)
        for number, codec in enumerate((alone, beside))
    ]
    assert results[0][1] == results[1][1]
    assert results[0][0].frames == results[1][0].frames > 5
    assert len(results[0][0].damages) == 1
    assert results[0][0].damages == results[1][0].damages


def test_tokens_that_are_not_what_was_written(beside: Codec, coded: Path, monkeypatch: pytest.MonkeyPatch):
    """What a process finds comes back as the damage that it is."""
    data = coded.read_bytes()
    reader = read_stream(io.BytesIO(data))
    pool = beside._decoding_workers(reader.header, None)
    assert pool is not None
    places = []

    def submit(record: ChunkRecord) -> Any:
        places.append(reader.item_offset)
        return begin(replace(record, tokens_crc32=record.tokens_crc32 ^ (record.number == 1)))

    begin = pool.submit
    monkeypatch.setattr(pool, "submit", submit)
    with pool:
        decoding = StreamDecoding(reader, object(), watch=Stopwatch(), workers=pool)  # type: ignore[arg-type]
        frames = [item for item in decoding if isinstance(item, Frame)]
    (damage,) = decoding.counts.damages
    assert damage.offset == places[1]
    assert "another CRC-32" in damage.reason
    assert damage.missing_chunks == range(1, 2)
    assert decoding.counts.chunks == len(places) - 1
    assert len(frames) == decoding.counts.frames
    assert frames[5].pts > frames[4].pts + 5, "five frames are not there"


# --- what does not go together, and what goes wrong ---


@pytest.mark.parametrize("multi_pass", [False, True])
def test_a_rate_is_met_by_one_process(beside: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multi_pass: bool):
    """What is steered comes chunk by chunk, and passes are too many to start processes for each."""
    monkeypatch.setattr("tokcodec.codec.encoding_workers", None)
    make_video(tmp_path / "in.mkv", count=9)
    rate = Rate(bits_per_pixel=0.4, multi_pass=multi_pass)
    result = beside.encode(tmp_path / "in.mkv", tmp_path / "a.tok", rate=rate, chunk_frames=5)
    assert result.rate is not None
    assert result.frames == 9


def test_concealing_goes_chunk_by_chunk(beside: Codec, coded: Path, tmp_path: Path):
    result = beside.decode(coded, tmp_path / "out.y4m", conceal=True, forecast=True)
    assert result.concealed == 0
    reader = read_stream(io.BytesIO(coded.read_bytes()))
    with pytest.raises(UsageError, match="one after the other"):
        StreamDecoding(reader, object(), watch=Stopwatch(), concealer=object(), workers=object())  # type: ignore[arg-type]


class _Never:
    """Workers that never get anything done before they are asked for it."""

    processes = 10**6

    def __init__(self) -> None:
        self.asked = 0

    def submit(self, item: object) -> Any:
        return self

    def done(self) -> bool:
        return False

    def result(self) -> Any:
        self.asked += 1
        raise CorruptStreamError("nothing comes")


def test_what_waits_for_a_chunk_is_bounded(coded: Path, monkeypatch: pytest.MonkeyPatch):
    """However much a file has between chunks, and however slow these are."""
    reader, pool = read_stream(io.BytesIO(coded.read_bytes())), _Never()
    records = list(read_stream(io.BytesIO(coded.read_bytes())))
    chunk = next(item for item in records if isinstance(item, ChunkRecord))
    packets = next(item for item in records if isinstance(item, SidePacketBatch))
    size, most = sum(len(packet.data) for packet in packets.packets), 0
    monkeypatch.setattr("tokcodec.decoding.MOST_WAITING_BYTES", 10 * size)

    def items() -> Iterator[object]:
        nonlocal most
        for number in range(500):
            most = max(most, decoding._waiting_bytes)
            yield packets if number % 100 else chunk

    decoding = StreamDecoding(reader, object(), watch=Stopwatch(), workers=pool)  # type: ignore[arg-type]
    monkeypatch.setattr(decoding, "_reader", _Items(items(), reader))
    held = sum(isinstance(item, Packet) for item in decoding)
    assert held == 495 * len(packets.packets)
    assert pool.asked == 5
    assert most == 10 * size
    assert decoding._waiting_bytes == 0


class _Items:
    """Items in the place of a reader's."""

    def __init__(self, items: Iterator[object], reader: StreamReader) -> None:
        self._items, self.header, self.item_offset = items, reader.header, 0

    def __iter__(self) -> Iterator[object]:
        return self._items


def _dies(task: Any) -> Callable[[Any], None]:
    return lambda item: os._exit(7)


def _sleeps(task: Any) -> Callable[[Any], None]:
    return lambda item: time.sleep(600)


def _cannot_start(task: Any) -> Callable[[Any], None]:
    raise ModelError("no such weights", hint="look elsewhere")


def workers_that(start: Callable[[Any], Callable[[Any], None]]) -> Workers[None]:
    return Workers(1, cast(DecodeTask, "a task"), start)


def test_a_process_that_is_killed_is_an_error_that_says_so():
    with workers_that(_dies) as pool:
        for _ in range(2):  # as it is found out, and when it is known
            with pytest.raises(LimitError, match="killed") as caught:
                pool.result(pool.submit(1))
            assert caught.value.hint is not None
            assert "--jobs" in caught.value.hint


def test_a_system_without_processes_is_no_obstacle_to_who_did_not_ask(coded: Path, monkeypatch: pytest.MonkeyPatch):
    def none(*arguments: object, **options: object) -> None:
        raise NotImplementedError("no semaphores here")

    monkeypatch.setattr(workers, "ProcessPoolExecutor", none)
    monkeypatch.setattr(workers, "processors", lambda: 2)
    header = read_stream(io.BytesIO(coded.read_bytes())).header
    assert Codec(device="cpu", jobs=None)._decoding_workers(header, 10**4) is None
    with pytest.raises(LimitError, match="no semaphores here") as caught:
        Codec(device="cpu", jobs=2)._decoding_workers(header, None)
    assert caught.value.hint == "use --jobs 1"


def test_what_goes_wrong_as_a_process_starts_is_told():
    with workers_that(_cannot_start) as pool, pytest.raises(ModelError, match="no such weights") as caught:
        pool.result(pool.submit(1))
    assert caught.value.hint == "look elsewhere"


def test_an_error_ends_the_processes_at_once():
    """And not when they have done what they do, which is ten minutes here."""

    def interrupted() -> None:
        with workers_that(_sleeps) as pool:
            future = pool.submit(1)
            while not future.running():
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


@HAS_SERVER
def test_the_command_line_loads_ahead_what_processes_need(coded: Path, tmp_path: Path):
    """One process loads it, the others are forked from there, and the pictures are the same."""
    program = """
import sys
from multiprocessing import forkserver
import tokcodec.cli as cli
from tokcodec import workers

sys.argv = ["tokcodec", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as error:
    assert not error.code
served = forkserver._forkserver._forkserver_pid is not None
print(workers._start_method, served, "torch" in sys.modules)
"""
    shown = {}
    for jobs, wanted in (("2", "forkserver True True"), ("1", "spawn False True")):
        command = [sys.executable, "-c", program, "decode", str(coded), f"{jobs}.y4m", "--jobs", jobs, "-q"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.splitlines()[-1] == wanted, done.stderr
        shown[jobs] = (tmp_path / f"{jobs}.y4m").read_bytes()
    assert len(shown["1"]) == len(shown["2"])


@HAS_SERVER
def test_only_a_source_that_looks_long_enough_is_prepared_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from multiprocessing import forkserver

    started = []
    monkeypatch.setattr(workers, "_start_method", "spawn")
    monkeypatch.setattr(forkserver, "set_forkserver_preload", lambda names: None)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: started.append(os.environ["OMP_NUM_THREADS"]))
    monkeypatch.setattr(workers, "processors", lambda: 2)
    source = tmp_path / "a.tok"
    source.write_bytes(bytes(99))
    for asked, size in ((None, 100), (1, 1), (0, 1)):
        workers.prepare(asked, source, least_bytes=size)
    workers.prepare(None, tmp_path / "-", least_bytes=0)
    assert (started, workers._start_method) == ([], "spawn")
    workers.prepare(None, source, least_bytes=99)
    workers.prepare(2, tmp_path / "-", least_bytes=99)
    assert (started, workers._start_method) == (["1", "1"], "forkserver")
