"""Processes that code chunks beside each other.

A chunk depends on no other, so this is where several cores pay: within a chunk every picture waits for the one before,
and two threads in its networks are hardly faster than one. Nothing heavy is imported here: a process sets how many
threads it may have before any library asks.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

from tokcodec.errors import LimitError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tokcodec.container import ChunkRecord, StreamHeader
    from tokcodec.frames import VideoInfo
    from tokcodec.pipeline import EncodeSettings
    from tokcodec.tokenizer.stream import StreamDecoder, StreamEncoder
    from tokcodec.weights import WeightsEntry

PROCESS_BYTES = 1 << 30
"""About what a process takes beside pictures."""
COPIES = 4
"""Of a chunk's pictures, for each process: its own, and those that come and go."""
MOST_PROCESSES = 16
"""That are started without being asked for."""
MOST_ASKED = 61
"""That are started at all: Windows waits for no more."""
WORTH_CHUNKS = 2
"""A video of fewer is done before processes have started."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What libraries read as they are loaded."""
PRELOADED = ["cv2", "tokcodec.codec", "tokcodec.probability.prior"]
"""Modules that processes need: one process loads them, from which others are forked."""
_environment = threading.Lock()
_start_method = "spawn"

_Result = TypeVar("_Result")


def processors() -> int:
    """That this process may use, or as many threads as a person has set."""
    given = os.environ.get(_THREADS[0], "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def memory_bytes() -> int:
    """Of this machine; 8 GiB where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def processes_for(asked: int | None, *, frames: int | None, chunk_frames: int, frame_bytes: int) -> int:
    """How many processes to code a video with on CPUs; 1 is this one alone.

    Args:
        asked: By a person; None for as many as there are processors, if the video is known to be long enough for that.
        frames: Of the video; None where that is not known.
        chunk_frames: Most frames of a chunk.
        frame_bytes: Of a picture.

    Returns:
        No more than what half of the machine's memory is enough for.
    """
    if asked is None:
        chunks = 0 if frames is None else frames // chunk_frames
        asked = min(processors(), MOST_PROCESSES, chunks) if chunks >= WORTH_CHUNKS else 1
    each = PROCESS_BYTES + COPIES * chunk_frames * frame_bytes
    return max(1, min(asked, memory_bytes() // 2 // each, MOST_ASKED))


def prepare(asked: int | None, source: Path, *, least_bytes: int) -> None:
    """Let a server of processes load what coding needs while this one does, if a video looks long enough; for programs
    that do nothing else. Without it, or where a system has none, each process loads it by itself.

    Args:
        asked: As for `processes_for`.
        source: What is coded.
        least_bytes: A smaller file has few chunks.
    """
    global _start_method
    if asked is None:
        asked = processors() if source.is_file() and source.stat().st_size >= least_bytes else 1
    if asked < 2 or "forkserver" not in get_all_start_methods():
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(PRELOADED)
    with _few_threads(1):
        forkserver.ensure_running()
    _start_method = "forkserver"


class Seconds(NamedTuple):
    """What a chunk took."""

    tokenizer: float
    entropy_coding: float


@dataclass(frozen=True, kw_only=True)
class EncodeTask:
    """What a process needs to encode chunks.

    Attributes:
        entry: The weights.
        info: What is encoded.
        settings: How.
        quality: At which quality.
    """

    entry: WeightsEntry
    info: VideoInfo
    settings: EncodeSettings
    quality: float


@dataclass(frozen=True, kw_only=True)
class DecodeTask:
    """What a process needs to decode chunks.

    Attributes:
        entry: The weights that are tried first.
        weights: Others, beside those that come with the package.
        style: Through which post-filter pictures are shown.
        prior: A weights file of the probability model.
        header: Of the file.
    """

    entry: WeightsEntry
    weights: Path | None
    style: str
    prior: Path | None
    header: StreamHeader


class ChunkOfFrames(NamedTuple):
    """A chunk to be encoded: its frames, uint8 `(T, H, W, 3)`, and what its record says of them."""

    frames: NDArray[np.uint8]
    number: int
    pts: tuple[int, ...]
    last_duration: int


class Workers(Generic[_Result]):
    """Processes that do one kind of work, as a context; none is started before there is something to do.

    Leaving it by an exception ends them at once, whatever they do.

    Args:
        processes: How many.
        task: Handed to each as it starts.
        start: Makes of it, there, what does the work.

    Raises:
        LimitError: The system has no means to start any.
    """

    def __init__(self, processes: int, task: EncodeTask | DecodeTask, start: Callable[[Any], Any]) -> None:
        self.processes = processes
        self._threads = max(1, processors() // processes)
        arguments = self._threads, pickle.dumps(task), start
        try:
            self._executor = ProcessPoolExecutor(
                processes, mp_context=get_context(_start_method), initializer=_start, initargs=arguments
            )
        except (OSError, ImportError, NotImplementedError) as error:  # what Python says where there are no semaphores
            raise LimitError(f"this system starts no further processes: {error}", hint=_ALONE) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:  # what has begun cannot be cancelled otherwise
            for process in list((self._executor._processes or {}).values()):
                process.terminate()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, item: object) -> Future[_Result]:
        """Begin with an item; the caller sees to it that few wait.

        Raises:
            LimitError: A process died, or none can be started.
        """
        try:
            with _few_threads(self._threads):  # a process that starts now inherits it
                return self._executor.submit(_work, item)
        except (BrokenProcessPool, OSError) as error:
            raise _killed() from error

    @staticmethod
    def result(future: Future[_Result]) -> _Result:
        """What came out.

        Raises:
            LimitError: A process died.
            TokcodecError: As for the work.
        """
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise _killed() from error


_ALONE = "use --jobs 1"


def _killed() -> LimitError:
    return LimitError(
        "a process that codes could not start or was killed, perhaps for want of memory",
        hint=f'{_ALONE}, or fewer; a script of your own needs `if __name__ == "__main__":`',
    )


@contextlib.contextmanager
def _few_threads(count: int) -> Iterator[None]:
    with _environment:
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, str(count)))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


_worker: Callable[[Any], Any] | None = None
_failure: BaseException | None = None


def _start(threads: int, task: bytes, start: Callable[[Any], Callable[[Any], Any]]) -> None:
    """In a new process."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it is told, and ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _worker, _failure
    try:
        import cv2
        import torch

        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        _worker = start(pickle.loads(task))  # made by this program, a moment ago
    except Exception as error:  # raised by the work, which can say so
        _failure = error


def _end_with_parent() -> None:
    """Nobody reads what a process makes whose parent was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(item: object) -> Any:
    if _failure is not None:
        raise _failure
    if _worker is None:
        raise RuntimeError("a process without work")
    return _worker(item)


def encoding_workers(processes: int, task: EncodeTask) -> Workers[tuple[ChunkRecord, Seconds]]:
    """Processes that encode chunks of type `ChunkOfFrames`."""
    return Workers(processes, task, _start_encoder)


def decoding_workers(processes: int, task: DecodeTask) -> Workers[tuple[NDArray[np.uint8], Seconds]]:
    """Processes that decode chunk records, to uint8 `(T, H, W, 3)`."""
    return Workers(processes, task, _start_decoder)


def _start_encoder(task: EncodeTask) -> Callable[[ChunkOfFrames], tuple[ChunkRecord, Seconds]]:
    import torch

    from tokcodec.coders import Coders
    from tokcodec.weights import AUTO_STYLE

    coders = Coders(task.entry, weights=None, device=torch.device("cpu"), style=AUTO_STYLE)
    encoder = coders.stream_encoder(task.info, task.settings, task.quality)
    return lambda item: _encoded(encoder, item, task.settings)


def _start_decoder(task: DecodeTask) -> Callable[[ChunkRecord], tuple[NDArray[np.uint8], Seconds]]:
    import torch

    from tokcodec.coders import Coders

    coders = Coders(task.entry, weights=task.weights, device=torch.device("cpu"), style=task.style)
    decoder = coders.decoder(task.header)
    return lambda record: _decoded(decoder, record, task)


def _encoded(encoder: StreamEncoder, item: ChunkOfFrames, settings: EncodeSettings) -> tuple[ChunkRecord, Seconds]:
    from tokcodec.counts import Stopwatch
    from tokcodec.pipeline import coded_chunk

    watch = Stopwatch()
    with watch.measure("tokenizer"):
        steps = [step for frame in item.frames if (step := encoder.push(frame)) is not None]
        steps += encoder.end_chunk()
    with watch.measure("entropy_coding"):
        record = coded_chunk(
            steps,
            geometry=encoder.geometry,
            number=item.number,
            pts=item.pts,
            last_duration=item.last_duration,
            entropy=settings.entropy,
        )
    return record, Seconds(watch.tokenizer, watch.entropy_coding)


def _decoded(decoder: StreamDecoder, record: ChunkRecord, task: DecodeTask) -> tuple[NDArray[np.uint8], Seconds]:
    import numpy as np

    from tokcodec.chunks import decode_chunk
    from tokcodec.counts import Stopwatch
    from tokcodec.decoding import pictures_of

    watch = Stopwatch()
    with watch.measure("entropy_coding"):
        tokens = decode_chunk(record, task.header, prior=task.prior)
    with watch.measure("tokenizer"):
        pictures = np.empty((record.frames, task.header.height, task.header.width, 3), np.uint8)
        done = 0
        for shown in pictures_of(decoder, record, tokens):
            part = shown[: record.frames - done]
            pictures[done : done + len(part)] = part
            done += len(part)
    return pictures, Seconds(watch.tokenizer, watch.entropy_coding)
