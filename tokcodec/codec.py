"""Files to files: a video into a `.tok` file, and back. The streams are in `pipeline.py` and `decoding.py`."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from tokcodec import mapping
from tokcodec.chunks import ADAPTIVE, AUTO, Entropy, choose_entropy
from tokcodec.coders import Coders
from tokcodec.concealment import concealer_for, read_index
from tokcodec.container import StreamHeader, read_stream
from tokcodec.counts import Stopwatch, StreamCounts
from tokcodec.decoding import DecodingWorkers, StreamDecoding
from tokcodec.encoding import ArraySource, can_open_again, encode_source
from tokcodec.errors import CorruptStreamError, LimitError, TokcodecError, UsageError
from tokcodec.frames import Frame, Packet, VideoInfo, VideoReader, format_for, open_video, open_writer
from tokcodec.output import atomic
from tokcodec.pipeline import EncodeSettings, EncodingWorkers, Progress
from tokcodec.rate import Rate
from tokcodec.results import CodecResult, DecodedVideo, result_of
from tokcodec.seeking import frames_in, seek, total_frames
from tokcodec.sources import CountingSource, open_tok
from tokcodec.tokenizer.device import choose_device
from tokcodec.weights import AUTO_STYLE, choose_post_filter, default_entry, find_by_name
from tokcodec.workers import DecodeTask, EncodeTask, decoding_workers, encoding_workers, processes_for

DEFAULT_EFFORT = 1
DEFAULT_CHUNK_FRAMES = 65

_Workers = TypeVar("_Workers")


class Codec:
    """A tokenizer on a device, loaded once and used for many files.

    Args:
        model: Name of a model, or the path of a `.safetensors` file, to encode with; None is the default.
            Decoding takes the model that the file names.
        weights: A weights file to decode with, beside those that come with the package.
        device: "auto", "cpu" or "cuda".
        entropy: Probability model to encode with: `adaptive`, `prior` or `prior-autoregressive`; `auto` is `prior`
            where a prior comes with the model, or one is named. Decoding takes what the file names.
        prior: Name or path of the weights of a prior, to encode and to decode with, and to conceal by; None takes
            those that are installed.
        style: How decoded pictures are shown: "faithful" as the decoder has them, "vivid" through the post-filter that
            comes with the tokenizer, which is sharper and a little farther from the original, "auto" as "vivid" where
            there is one; or the path of a post-filter's `.safetensors` file. Tokens do not depend on it.
        jobs: Processes that :meth:`encode` and :meth:`decode` start on a CPU to code chunks beside each other; 1 starts
            none, None as many as there are processors for videos of a few chunks, and never more than half of the
            machine's memory is enough for. What meets a rate, or conceals, goes chunk by chunk. A script that has them
            started must keep what it does under `if __name__ == "__main__":`, as `multiprocessing` wants it.

    Raises:
        ModelError: No such model, or its weights are damaged.
        DeviceError: No such device.
        UsageError: `jobs` is no such number.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        weights: str | Path | None = None,
        device: str = "auto",
        entropy: str = AUTO,
        prior: str | Path | None = None,
        style: str | Path = AUTO_STYLE,
        jobs: int | None = 1,
    ) -> None:
        if jobs is not None and (type(jobs) is not int or jobs < 1):
            raise UsageError(f"jobs is a whole number from 1 on, not {jobs!r}")
        self.device, self._style = choose_device(device), str(style)
        self._jobs = jobs if self.device.type == "cpu" else 1
        self._entry = default_entry() if model is None else find_by_name(model)
        self._weights = None if weights is None else Path(weights)
        self._coders = Coders(self._entry, weights=self._weights, device=self.device, style=self._style)
        self._prior = Path(prior) if prior is not None and Path(prior).suffix == ".safetensors" else None
        self._prior_name = None if prior is None else str(prior)
        self._entropy_name = entropy
        if entropy != AUTO:  # which may never be asked for
            _ = self.entropy

    @property
    def entropy(self) -> Entropy:
        """The probability model to encode with.

        Raises:
            UsageError: There is none of that name.
            ModelError: Its weights are not there.
        """
        if self._entropy_name == ADAPTIVE.model:  # a prior may be named for decoding
            return ADAPTIVE
        return choose_entropy(self._entropy_name, self._prior_name, tokenizer=self._entry.sha256)

    @property
    def post_filter_sha256(self) -> str:
        """Digest of the post-filter through which files of the model to encode with are shown; "" where there is none.

        Raises:
            ModelError: There is none of that style.
        """
        entry = choose_post_filter(self._style, tokenizer=self._entry.sha256)
        return "" if entry is None else entry.sha256

    @property
    def prior_file(self) -> Path | None:
        """The weights file of a prior that was named, to decode with."""
        return self._prior

    def encode(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        *,
        quality: int | None = None,
        rate: Rate | None = None,
        effort: int = DEFAULT_EFFORT,
        chunk_frames: int = DEFAULT_CHUNK_FRAMES,
        scene_cuts: bool = True,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
        audio: bool = True,
        force: bool = False,
        progress: Progress | None = None,
    ) -> CodecResult:
        """Encode a video or a picture into a `.tok` file.

        Args:
            source: Anything that FFmpeg opens, or a binary stream.
            target: Path of the `.tok` file, or a binary stream, which need not be seekable.
            quality: 1 (smallest file) to 6 (best picture); None is 6, or what the rate needs.
            rate: How large the file shall be, instead of a quality; the result's `rate` says what became of it.
            effort: 0 keeps the same number of bits everywhere (level `quality`), but for first pictures and
                residuals, which have the bits that the quality asks for; 1 tries where bits do most good; 2 and 3
                also refine the tokens, and take about 3 and 6 times as long.
            chunk_frames: Most frames of a chunk, 1 + 4t; a chunk is the unit of seeking and of damage.
            scene_cuts: Begin a chunk where another scene begins, too.
            start_seconds: Leave out what comes before.
            duration_seconds: Leave out what comes so long after the start.
            audio: Carry audio and subtitles along, unchanged.
            force: Replace an existing target.
            progress: Called with the number of frames done, after each; it begins again with each pass over the file.

        Raises:
            MediaError: The source cannot be read as video.
            OutputError: The target exists or cannot be written.
            UsageError: A value is out of range, the file cannot be so small, or a source that can be read only once
                would have to be read again.
        """
        settings = EncodeSettings(
            quality=quality,
            chunk_frames=chunk_frames,
            effort=effort,
            entropy=self.entropy,
            rate=rate,
            scene_cuts=scene_cuts,
        )
        if rate is not None and rate.is_whole and not can_open_again(source):
            raise UsageError(
                "the input can be read only once, and this rate needs several passes",
                hint="save it as a file first; bits per pixel and kilobits per second in one pass work for pipes",
            )
        watch = Stopwatch()
        readers: list[VideoReader] = []
        origin = None if isinstance(source, (str, Path)) or not can_open_again(source) else source.tell()

        def open_source() -> VideoReader:
            if origin is not None and readers and not isinstance(source, (str, Path)):
                source.seek(origin)
            readers.append(
                open_video(source, start_seconds=start_seconds, duration_seconds=duration_seconds, side_streams=audio)
            )
            return readers[-1]

        with contextlib.ExitStack() as stack:
            sink = _open_sink(target, force=force, source=source, stack=stack)
            encoding = encode_source(
                open_source,
                self._coders.encoder,
                sink,
                settings=settings,
                watch=watch,
                progress=progress,
                make_workers=self._encoding_workers,
            )
        return result_of(
            encoding.coded.counts,
            encoding.info,
            encoding.coded.size,
            watch,
            notes=(*readers[-1].notes, *encoding.notes),
            lost=tuple(readers[-1].damage),
            rate=encoding.report,
        )

    def _encoding_workers(self, info: VideoInfo, settings: EncodeSettings, quality: float) -> EncodingWorkers | None:
        processes = processes_for(
            self._jobs,
            frames=info.frame_count_hint,
            chunk_frames=settings.chunk_frames,
            frame_bytes=3 * info.width * info.height,
        )
        task = EncodeTask(entry=self._entry, info=info, settings=settings, quality=quality)
        return None if processes == 1 else self._where_possible(lambda: encoding_workers(processes, task))

    def _decoding_workers(self, header: StreamHeader, frames: int | None) -> DecodingWorkers | None:
        processes = processes_for(
            self._jobs,
            frames=frames,
            chunk_frames=header.max_chunk_frames,
            frame_bytes=3 * header.width * header.height,
        )
        task = DecodeTask(entry=self._entry, weights=self._weights, style=self._style, prior=self._prior, header=header)
        return None if processes == 1 else self._where_possible(lambda: decoding_workers(processes, task))

    def _where_possible(self, start: Callable[[], _Workers]) -> _Workers | None:
        """What is started; None where the system cannot, and nobody has asked for it."""
        try:
            return start()
        except LimitError:
            if self._jobs is not None:
                raise
            return None

    def encode_frames(
        self,
        frames: NDArray[np.uint8],
        *,
        quality: int | None = None,
        rate: Rate | None = None,
        frame_rate: Fraction | float = 25,
        effort: int = DEFAULT_EFFORT,
        chunk_frames: int = DEFAULT_CHUNK_FRAMES,
        scene_cuts: bool = True,
    ) -> bytes:
        """Encode an array into the bytes of a `.tok` file.

        Args:
            frames: uint8 `(T, H, W, 3)` RGB.
            quality: As for :meth:`encode`.
            rate: As for :meth:`encode`.
            effort: As for :meth:`encode`.
            frame_rate: Frames a second.
            chunk_frames: As for :meth:`encode`.
            scene_cuts: As for :meth:`encode`.

        Raises:
            UsageError: Another shape or type, or a value out of range.
        """
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4:
            raise UsageError("frames must be a NumPy array, uint8 (T, H, W, 3)")
        if frames.shape[3] != 3 or 0 in frames.shape:
            raise UsageError(f"frames must be (T, H, W, 3) and not empty, not {frames.shape}")
        settings = EncodeSettings(
            quality=quality,
            chunk_frames=chunk_frames,
            effort=effort,
            entropy=self.entropy,
            rate=rate,
            scene_cuts=scene_cuts,
        )
        sink = io.BytesIO()
        array = ArraySource(frames, frame_rate=_rate(frame_rate))
        encode_source(
            lambda: contextlib.nullcontext(array), self._coders.encoder, sink, settings=settings, watch=Stopwatch()
        )
        return sink.getvalue()

    def decode(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        *,
        codec: str | None = None,
        crf: float | None = None,
        options: Mapping[str, str] | None = None,
        format_name: str | None = None,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
        audio: bool = True,
        conceal: bool = False,
        forecast: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> CodecResult:
        """Decode a `.tok` file into a media file, around damage.

        Args:
            source: Path of the `.tok` file, or a binary stream.
            target: Path of an mp4, mov, mkv, webm, y4m or png file, or of a folder of PNGs; or a binary
                stream, which gets y4m.
            codec: Encoder of the output, as FFmpeg calls it.
            crf: Its constant rate factor.
            options: Further options of the encoder.
            format_name: Format of the output where its name does not tell.
            start_seconds: Leave out what comes before; from the first frame on. Needs a source that can seek.
            duration_seconds: Leave out what comes so long after the start.
            audio: Write the side streams too.
            conceal: Fill lost chunks in from the chunk before, where it is known how long they are.
            forecast: Do that without a prior.
            force: Replace an existing target.
            progress: Called with the number of frames done, after each.

        Returns:
            The result; `damages` says what was lost, `concealed` how many frames were filled in.

        Raises:
            CorruptStreamError: Not a `.tok` file, or no chunk of it is whole.
            ModelError: The weights that the file names are not there.
            OutputError: The target exists or cannot be written.
        """
        watch = Stopwatch()
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(open_tok(Path(source))) if isinstance(source, (str, Path)) else source
            counting = CountingSource(stream)
            part, index = None, read_index(stream) if conceal else ()
            if start_seconds or duration_seconds is not None:
                reader, part = seek(stream, start_seconds=start_seconds, duration_seconds=duration_seconds)
                total = frames_in(part, reader.header)
            else:
                total = total_frames(stream) if progress or self._jobs is None else None
                reader = read_stream(counting)
            header, decoder, concealer = reader.header, self._coders.decoder(reader.header), None
            if conceal:
                concealer = concealer_for(
                    header, decoder, entries=index, prior=self._prior_name, part=part, forecast=forecast
                )
            workers = None if conceal else self._decoding_workers(header, total)
            if workers is not None:
                stack.enter_context(workers)
            decoding = StreamDecoding(
                reader, decoder, watch=watch, part=part, prior=self._prior, concealer=concealer, workers=workers
            )
            if isinstance(target, (str, Path)):
                format_name = format_name or format_for(target)
                place: Path | BinaryIO = stack.enter_context(atomic(Path(target), force=force, source=source))
            else:
                place, format_name = target, format_name or "y4m"
            writer = open_writer(
                place,
                mapping.info_of(header, side_streams=audio),
                format_name=format_name,
                codec=codec,
                crf=crf,
                options=options,
                label=str(target) if isinstance(target, (str, Path)) else "standard output",
            )
            try:
                for item in decoding:
                    if isinstance(item, Packet):
                        if audio:
                            writer.write_packet(item)
                        continue
                    writer.write_frame(item)
                    if progress is not None:
                        progress(decoding.counts.frames, total)
                counts = decoding.counts
                if not counts.frames:
                    raise _nothing_decoded(counts)
                writer.close()
            except BaseException:
                writer.abort()
                raise
        tok_bytes = None if part else counting.bytes_read
        concealed = () if concealer is None else concealer.notes
        result = result_of(counts, header, tok_bytes, watch, notes=(*writer.notes, *concealed))
        return result if concealer is None else replace(result, concealed=concealer.frames)

    def decode_frames(self, data: bytes, *, conceal: bool = False, forecast: bool = False) -> DecodedVideo:
        """Decode the bytes of a `.tok` file into an array; memory is that of all frames.

        Args:
            data: A whole `.tok` file.
            conceal: As for :meth:`decode`.
            forecast: As for :meth:`decode`.

        Raises:
            CorruptStreamError: Not a `.tok` file, or no chunk of it is whole.
            ModelError: The weights that the file names are not there.
        """
        reader = read_stream(io.BytesIO(data))
        decoder, concealer = self._coders.decoder(reader.header), None
        if conceal:
            index = read_index(io.BytesIO(data))
            concealer = concealer_for(
                reader.header, decoder, entries=index, prior=self._prior_name, part=None, forecast=forecast
            )
        decoding = StreamDecoding(reader, decoder, watch=Stopwatch(), prior=self._prior, concealer=concealer)
        frames = [item for item in decoding if isinstance(item, Frame)]
        if not frames:
            raise _nothing_decoded(decoding.counts)
        return DecodedVideo(
            frames=np.stack([frame.pixels for frame in frames]),
            pts=tuple(frame.pts for frame in frames),
            time_base=reader.header.time_base,
            damages=decoding.counts.damages,
        )


def _open_sink(target: str | Path | BinaryIO, *, force: bool, source: object, stack: contextlib.ExitStack) -> BinaryIO:
    if not isinstance(target, (str, Path)):
        return target
    part = stack.enter_context(atomic(Path(target), force=force, source=source))
    return stack.enter_context(part.open("wb"))


def _rate(value: Fraction | float) -> Fraction:
    """A frame rate as a ratio; 29.97 means 2997/100."""
    if not isinstance(value, (int, float, Fraction)) or not math.isfinite(value) or value <= 0:
        raise UsageError(f"the frame rate must be a number above 0, not {value!r}")
    rate = Fraction(value).limit_denominator(1001)
    if not rate:
        raise UsageError(f"the frame rate {value!r} is too low")
    return rate


def _nothing_decoded(counts: StreamCounts) -> TokcodecError:
    if not counts.damages:
        return UsageError("no frame lies in the range that was asked for", hint="choose a start before the end")
    first = counts.damages[0]
    return CorruptStreamError(
        f"nothing could be decoded: {first.reason}", offset=first.offset, hint="run `tokcodec verify`"
    )
