"""A codec other than tokcodec, in a process of its own: `python -m tokcodec.bench.child ACTION CODEC JSON`.

Reads and writes the same lossless files as `tokcodec encode` and `tokcodec decode` do, so that times compare. A JSON
object on standard output says how long it took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from tokcodec.bench.codecs import ChildCodec, CodecTask, others
from tokcodec.console import Console
from tokcodec.errors import TokcodecError
from tokcodec.frames import Frame, VideoInfo, open_video, open_writer
from tokcodec.frames.elementary import decode_elementary
from tokcodec.frames.info import Colour, Pixels

RGB = Colour(matrix=0, full_range=True)


def frames_of(path: Path) -> Iterator[Pixels]:
    """uint8 (H, W, 3) RGB of a lossless clip.

    Raises:
        MediaError: It cannot be read.
    """
    with open_video(path, side_streams=False) as reader:
        yield from (item.pixels for item in reader if isinstance(item, Frame))


def encode(codec: ChildCodec, task: CodecTask) -> int:
    """Write the coded file; gives its bytes."""
    frames, rate = frames_of(task.source), Fraction(task.frame_rate)
    data = codec.encode(frames, setting=task.setting, frame_rate=rate, matrix=task.matrix, threads=task.threads)
    task.target.write_bytes(data)
    return len(data)


def decode(codec: ChildCodec, task: CodecTask) -> int:
    """Write the decoded clip, lossless; gives its frames."""
    rate = Fraction(task.frame_rate)
    info = VideoInfo(width=task.width, height=task.height, time_base=1 / rate, frame_rate=rate, colour=RGB)
    count = 0
    with open_writer(task.target, info, codec="ffv1") as writer:
        pictures = decode_elementary(
            task.source.read_bytes(),
            decoder=codec.decoder,
            matrix=task.matrix,
            width=task.width,
            height=task.height,
            threads=task.threads,
        )
        for pixels in pictures:
            writer.write_frame(Frame(pixels=pixels, pts=count))
            count += 1
    return count


def main(arguments: list[str]) -> int:
    """Do it, and print what it took."""
    action, name, text = arguments
    values: dict[str, Any] = json.loads(text)
    task = CodecTask(**{**values, "source": Path(values["source"]), "target": Path(values["target"])})
    codec = others()[name]
    console = Console(json_results=True)
    start = time.perf_counter()
    try:
        count = encode(codec, task) if action == "encode" else decode(codec, task)
    except TokcodecError as error:
        console.error(error)
        return error.exit_code
    console.result({"seconds": time.perf_counter() - start, "count": count}, [])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
