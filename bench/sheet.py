"""Frames side by side: the middle frame of each video, original and by each codec, all at one rate.

    python bench/sheet.py VIDEO... --out sheet.jpg [--bpp 0.03] [--frames N] [--lpips-weights DIR]
    python bench/sheet.py --results FOLDER CLIP... --out sheet.jpg

tokcodec encodes at the rate asked for, the quantizers of the others are searched until theirs is the same, as for the
report of `tokcodec bench`; the second takes the example frames of a folder of results, each clip at a rate of its own.
Over each picture: codec, bits per pixel of the whole clip, LPIPS (AlexNet) of the frame
shown.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from tokcodec.bench.clips import ClipFacts, write_clip
from tokcodec.bench.codecs import BenchCodec, CodecTask, Tokcodec, make_codecs
from tokcodec.bench.datasets import ClipSource, parse_size
from tokcodec.bench.examples import ORIGINAL, OWN, WORKING_RATE, ExampleJob, make_example
from tokcodec.bench.rates import match
from tokcodec.bench.record import Setting
from tokcodec.bench.report.series import look_of
from tokcodec.bench.tasks import EncodeJob, encode_clip
from tokcodec.errors import MediaError, TokcodecError
from tokcodec.frames.info import Pixels
from tokcodec.metrics.lpips_network import ALEX, SMALLEST_SIDE, Lpips, load_lpips

STRIP = 20
"""Pixels of the line of text over each picture."""
GAP = 4
JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class TokcodecAtRate(Tokcodec):
    """tokcodec with rates for settings, where the bench has qualities."""

    def encode_command(self, task: CodecTask) -> list[str]:
        """`tokcodec encode --bpp`."""
        command = super().encode_command(dataclasses.replace(task, setting={**task.setting, "quality": ""}))
        place = command.index("--quality")
        return [*command[:place], "--bpp", str(task.setting["bpp"]), *command[place + 2 :]]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture of the sheet.

    Attributes:
        pixels: uint8 `(H, W, 3)` RGB.
        label: What stands over it.
    """

    pixels: Pixels
    label: str


def label_of(name: str, clip: str, *, rate: float | None, lpips: float | None) -> str:
    """The clip over its original, codec, rate and distance over all others."""
    if name == ORIGINAL:
        return f"{clip}, original"
    distance = "" if lpips is None else f", LPIPS {lpips:.3f}"
    return f"{look_of(name).label}, {rate:.4f} bpp{distance}"


def draw_sheet(rows: Sequence[Sequence[Shown]], width: int) -> Image.Image:
    """All rows below each other; pictures that are wider than `width` pixels are scaled down to it."""
    font = ImageFont.load_default(size=STRIP - 7)
    scaled = [[_scaled(shown.pixels, width) for shown in row] for row in rows]
    heights = [STRIP + max(picture.height for picture in row) for row in scaled]
    widest = max(picture.width for row in scaled for picture in row)
    columns = max(map(len, rows))
    sheet = Image.new("RGB", (columns * (widest + GAP) - GAP, sum(heights) + GAP * (len(rows) - 1)), "white")
    pen = ImageDraw.Draw(sheet)
    top = 0
    for row, pictures, height in zip(rows, scaled, heights, strict=True):
        for number, (shown, picture) in enumerate(zip(row, pictures, strict=True)):
            left = number * (widest + GAP)
            pen.text((left + 2, top + 2), shown.label, fill="black", font=font)
            sheet.paste(picture, (left, top + STRIP))
        top += height + GAP
    return sheet


def _scaled(pixels: Pixels, width: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    if picture.width <= width:
        return picture
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


class Sheet:
    """Codes clips at a rate.

    Args:
        codecs: All of them, tokcodec first.
        rate: Bits per pixel.
        threads: Of each codec.
        lpips: Measures the frames; None leaves that out.
        say: Takes a line for people after each encode.
    """

    def __init__(
        self,
        codecs: Sequence[BenchCodec],
        *,
        rate: float,
        threads: int,
        lpips: Lpips | None,
        say: Callable[[str], None],
    ) -> None:
        self._codecs, self._rate, self._threads, self._lpips, self._say = codecs, rate, threads, lpips, say

    def row(self, video: Path, *, size: tuple[int, int] | None, max_frames: int | None) -> dict[str, Shown]:
        """The middle frame of a video: original, then by each codec that takes pictures of this size.

        Raises:
            MediaError: The video cannot be read, or a codec fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder) / "clip.avi"
            facts = write_clip(ClipSource(name=video.stem, path=video), clip, size=size, max_frames=max_frames)
            number, target = facts.frames // 2, self._rate
            original = _picture(ExampleJob(number=number, target=clip.with_name("original.png"), clip=clip))
            row = {ORIGINAL: Shown(pixels=original, label=label_of(ORIGINAL, video.stem, rate=None, lpips=None))}
            for codec in self._codecs:
                if reason := codec.refuses(facts.width, facts.height):
                    self._say(f"{video.stem}: {codec.name} is left out: {reason}")
                    continue
                job, coded_bytes = self._coded(codec, clip, facts, target)
                rate = _rate(coded_bytes, facts)
                target = rate if codec.name == OWN else target
                example = ExampleJob(
                    number=number,
                    target=clip.with_name(f"{codec.name}.png"),
                    clip=clip,
                    encode=job,
                    coded_bytes=coded_bytes,
                )
                pixels = _picture(example)
                label = label_of(codec.name, video.stem, rate=rate, lpips=self._distance(original, pixels))
                row[codec.name] = Shown(pixels=pixels, label=label)
                self._say(f"{video.stem}: {label}")
        return row

    def _coded(self, codec: BenchCodec, clip: Path, facts: ClipFacts, target: float) -> tuple[EncodeJob, int]:
        """The encode whose rate is nearest to the target, and its bytes."""
        quantizer = codec.quantizer
        if quantizer is None:
            job = self._job(codec, clip, facts, {"bpp": target})
            return job, encode_clip(job).coded_bytes
        # VVenC's last setting is the perceptual one, which is made for eyes.
        fixed = codec.settings()[-1]
        found: dict[float, tuple[EncodeJob, int]] = {}
        steps = match(quantizer, target, {})
        try:
            value = next(steps)
            while True:
                job = self._job(codec, clip, facts, {quantizer.name: value, **fixed})
                try:
                    found[value] = job, encode_clip(job).coded_bytes
                except MediaError as error:
                    self._say(f"{error}; another quantizer takes its place")
                value = steps.send(_rate(found[value][1], facts) if value in found else None)
        except StopIteration as end:
            return found[end.value]

    def _job(self, codec: BenchCodec, clip: Path, facts: ClipFacts, setting: Setting) -> EncodeJob:
        whole = {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in setting.items()}
        words = "_".join(f"{name}{value}" for name, value in whole.items()).replace(".", "p")
        target = clip.with_name(f"{codec.name}_{words}{codec.suffix}")
        return EncodeJob(codec=codec, setting=whole, clip=clip, target=target, facts=facts, threads=self._threads)

    def _distance(self, first: Pixels, second: Pixels) -> float | None:
        return distance_of(first, second, self._lpips)


def distance_of(first: Pixels, second: Pixels, lpips: Lpips | None) -> float | None:
    """LPIPS of two pictures; None without the network, and of pictures that are too small for it."""
    if lpips is None or min(first.shape[:2]) < SMALLEST_SIDE:
        return None
    pair = torch.from_numpy(np.stack([first, second])).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        return float(lpips(pair[:1], pair[1:]))


def row_of_results(folder: Path, clip: str, codecs: Sequence[str], lpips: Lpips | None) -> list[Shown]:
    """The example frames of a clip in a folder of results, the original first; codecs that have none are left out.

    Raises:
        MediaError: There are none of this clip.
    """
    frames = folder / "frames"
    listed = json.loads((frames / "index.json").read_text()) if (frames / "index.json").exists() else []
    known = {entry["codec"]: entry for entry in listed if entry["clip"] == clip}
    if ORIGINAL not in known:
        raise MediaError(f"has no example frames of {clip}", where=str(folder), hint="run tokcodec bench to its end")
    pixels = {}
    for name in (ORIGINAL, *codecs):
        if name in known:
            with Image.open(frames / known[name]["file"]) as picture:
                pixels[name] = np.asarray(picture.convert("RGB"))
    original = pixels[ORIGINAL]
    return [
        Shown(
            pixels=picture,
            label=label_of(name, clip, rate=known[name]["bits_per_pixel"], lpips=distance_of(original, picture, lpips)),
        )
        for name, picture in pixels.items()
    ]


def _rate(coded_bytes: int, facts: ClipFacts) -> float:
    return 8.0 * coded_bytes / (facts.width * facts.height * facts.frames)


def _picture(job: ExampleJob) -> Pixels:
    make_example(job)
    with Image.open(job.target) as picture:
        return np.asarray(picture.convert("RGB"))


def main() -> int:
    """Encode, and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO", help="with --results names of clips")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="of tokcodec bench: show its example frames")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG or JPEG; it is replaced")
    parser.add_argument("--bpp", type=float, default=WORKING_RATE, help="bits per pixel of all codecs")
    parser.add_argument("--codecs", default="x265,vvenc", help="columns between the original and tokcodec")
    parser.add_argument("--model", help="model name or weights file")
    parser.add_argument("--style", default="auto", help="auto, faithful, vivid or a file; of tokcodec's decoder")
    parser.add_argument("--frames", type=int, help="only the first so many frames")
    parser.add_argument("--size", metavar="WxH", help="size to measure at; else that of each video")
    parser.add_argument("--width", type=int, default=480, help="wider pictures are scaled down for the sheet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lpips-weights", type=Path, metavar="DIR", help="backbones of LPIPS")
    arguments = parser.parse_args()
    if arguments.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        parser.error(f"{arguments.out} is neither a PNG nor a JPEG; name it .png or .jpg")
    if arguments.bpp <= 0:
        parser.error("--bpp must be above 0, for example 0.03")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        own, *others = make_codecs([OWN, *arguments.codecs.split(",")], model=arguments.model, style=arguments.style)
        absent = {codec.name: reason for codec in others if (reason := codec.absent())}
        for name, reason in absent.items():
            say(f"{name} is absent: {reason}")
        others = [codec for codec in others if codec.name not in absent]
        at_rate = TokcodecAtRate(**{field.name: getattr(own, field.name) for field in dataclasses.fields(Tokcodec)})
        lpips = load_lpips(ALEX, folder=arguments.lpips_weights)
        if lpips.network is None:
            say(f"LPIPS is not measured: {lpips.reason}")
        torch.set_num_threads(arguments.threads)
        sheet = Sheet([at_rate, *others], rate=arguments.bpp, threads=arguments.threads, lpips=lpips.network, say=say)
        size = None if arguments.size is None else parse_size(arguments.size)
        columns = [ORIGINAL, *(codec.name for codec in others), OWN]
        rows = []
        for video in arguments.videos:
            if arguments.results is not None:
                rows.append(row_of_results(arguments.results, str(video), columns[1:], lpips.network))
                continue
            found = sheet.row(video, size=size, max_frames=arguments.frames)
            rows.append([found[name] for name in columns if name in found])
    except TokcodecError as error:
        say(f"error: {error}")
        return error.exit_code
    options: dict[str, Any] = {} if arguments.out.suffix.lower() == ".png" else {"quality": JPEG_QUALITY}
    draw_sheet(rows, arguments.width).save(arguments.out, **options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
