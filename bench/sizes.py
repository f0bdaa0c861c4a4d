"""Quality against the work of a decoder: models and post-filters on the same videos, at equal rates.

    python bench/sizes.py VIDEO... --out sizes.jsonl --lpips-weights DIR [--qualities 2,4,5] [--frames 33]
    python bench/sizes.py --table --out sizes.jsonl [--rates 0.01,0.02,0.03] [--plot FILE.png]

Each video is encoded once for each model and quality, and the file decoded through each style. A line of the output has
what came out, and the processor time of decoding on one thread (frames in memory; entropy coder and filter included);
what the output has already is not done again. The table gives FLOPs a pixel as `tokcodec info --model` counts them, of
the convolutions of decoder and filter, and means over videos of each measure, interpolated at each rate (PCHIP in its
logarithm, never extrapolated: a video that does not reach a rate in all sizes counts in none). LPIPS is of every
fourth frame (AlexNet) and of every 16th (VGG).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from tokcodec import Codec
from tokcodec.bench.equal import at_rate
from tokcodec.errors import TokcodecError, UsageError
from tokcodec.evaluation.clips import read_clip
from tokcodec.evaluation.plot import check_matplotlib
from tokcodec.metrics.meter import Meter, make_meter
from tokcodec.tokenizer.cost import measure_cost, post_filter_flops_per_pixel
from tokcodec.weights import find_by_name, load_post_filter, load_tokenizer
from tokcodec.weights.post_filters import choose_post_filter

METRICS = {"psnr_rgb": "PSNR RGB, dB", "lpips_alex": "LPIPS AlexNet", "lpips_vgg": "LPIPS VGG"}
EVERY, VGG_EVERY = 4, 16

Line = Mapping[str, Any]


class Size(NamedTuple):
    """A model and how its pictures are shown."""

    model: str
    style: str

    def flops_per_pixel(self) -> float:
        """Of decoder and filter."""
        entry = find_by_name(self.model)
        chosen = choose_post_filter(self.style, tokenizer=entry.sha256)
        shown = 0.0 if chosen is None else post_filter_flops_per_pixel(load_post_filter(chosen).config)
        return measure_cost(load_tokenizer(entry)).decoder_flops_per_pixel + shown


def measured(
    video: Path, size: Sequence[Size], qualities: Sequence[int], *, frames: int | None, meter: Meter, done: set[Any]
) -> Iterator[Line]:
    """The lines of a video that are not done yet."""
    clip = read_clip(video, max_frames=frames)
    for model in dict.fromkeys(each.model for each in size):
        for quality in qualities:
            wanted = [each for each in size if each.model == model and (video.stem, *each, quality) not in done]
            if not wanted:
                continue
            data = Codec(device="cpu", model=model).encode_frames(
                clip.frames, quality=quality, frame_rate=clip.frame_rate
            )
            for each in wanted:
                codec = Codec(device="cpu", style=each.style)
                codec.decode_frames(data)  # so that weights are loaded
                start = time.process_time()
                shown = codec.decode_frames(data).frames
                seconds = time.process_time() - start
                found = meter.measure(clip.frames, shown, matrix=clip.matrix)
                yield {
                    "clip": video.stem,
                    **each._asdict(),
                    "quality": quality,
                    "frames": len(shown),
                    "bits_per_pixel": 8 * len(data) / (shown.size / 3),
                    "decode_seconds": round(seconds, 3),
                    **{name: getattr(found, name) for name in METRICS},
                }


def read_lines(path: Path) -> list[Line]:
    """What an output has; none where there is none.

    Raises:
        UsageError: A line is not one of these.
    """
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise UsageError("has a line that is not JSON", where=str(path)) from error


def key_of(line: Line) -> tuple[Any, ...]:
    """What a line is about."""
    return line["clip"], line["model"], line["style"], line["quality"]


class Row(NamedTuple):
    """A size of the table.

    Attributes:
        size: Which.
        flops_per_pixel: Of decoder and filter.
        milliseconds: Of processor time a frame, mean over lines.
        values: By rate and metric, mean over the clips that count; None where none does.
    """

    size: Size
    flops_per_pixel: float
    milliseconds: float
    values: dict[tuple[float, str], float | None]


def rows_of(lines: Sequence[Line], rates: Sequence[float]) -> list[Row]:
    """The sizes that there are, by FLOPs."""
    sizes = list(dict.fromkeys(Size(line["model"], line["style"]) for line in lines))
    clips = list(dict.fromkeys(line["clip"] for line in lines))
    curves = {
        (size, clip, metric): sorted(
            (line["bits_per_pixel"], line[metric])
            for line in lines
            if (line["clip"], line["model"], line["style"]) == (clip, *size)
        )
        for size in sizes
        for clip in clips
        for metric in METRICS
    }
    rows = []
    for size in sizes:
        own = [line for line in lines if Size(line["model"], line["style"]) == size]
        values: dict[tuple[float, str], float | None] = {}
        for rate in rates:
            for metric in METRICS:
                found = [[at_rate(curves[each, clip, metric], rate) for each in sizes] for clip in clips]
                counted = [of[sizes.index(size)] for of in found if None not in of]
                values[rate, metric] = fmean(counted) if counted else None  # type: ignore[type-var,arg-type]
        milliseconds = 1000 * sum(line["decode_seconds"] for line in own) / sum(line["frames"] for line in own)
        rows.append(Row(size, size.flops_per_pixel(), milliseconds, values))
    return sorted(rows, key=lambda row: row.flops_per_pixel)


def markdown(rows: Sequence[Row], rates: Sequence[float]) -> str:
    """The table."""
    heads = [f"at {rate:g}: {', '.join(METRICS.values())}" for rate in rates]
    lines = [f"| model, style | kFLOPs a pixel | ms a frame | {' | '.join(heads)} |", "|---" * (3 + len(rates)) + "|"]
    for row in rows:
        cells = [", ".join(_text(row.values[rate, metric], metric) for metric in METRICS) for rate in rates]
        start = f"| {row.size.model}, {row.size.style} | {row.flops_per_pixel / 1e3:.1f} | {row.milliseconds:.0f} | "
        lines.append(f"{start}{' | '.join(cells)} |")
    return "\n".join(lines)


def _text(value: float | None, metric: str) -> str:
    if value is None:
        return "not reached"
    return f"{value:.2f}" if metric.startswith("psnr") else f"{value:.3f}"


def draw(rows: Sequence[Row], rates: Sequence[float], target: Path) -> None:
    """Each metric against processor time a frame, a line a rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (metric, label) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        for rate in rates:
            points = sorted(
                (row.milliseconds, value) for row in rows if (value := row.values[rate, metric]) is not None
            )
            axes.plot(*zip(*points, strict=True), "o-", label=f"{rate:g} bits per pixel")
        for row in rows:
            if (value := row.values[rates[0], metric]) is not None:
                name = f"{row.size.model}, {row.size.style}\n{row.flops_per_pixel / 1e3:.0f} kFLOPs"
                axes.annotate(
                    name, (row.milliseconds, value), fontsize=6, ha="center", xytext=(0, 5), textcoords="offset points"
                )
        axes.set_xlabel("processor time, ms a frame")
        axes.set_title(label)
        axes.margins(0.12, 0.2)
    figure.axes[0].legend(fontsize=7)
    figure.savefig(target, dpi=150)


def main() -> int:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON; a run goes on where one stopped")
    parser.add_argument("--lpips-weights", type=Path, help="backbones of LPIPS")
    parser.add_argument("--models", default="fast,base")
    parser.add_argument("--styles", default="faithful,light,vivid")
    parser.add_argument("--qualities", default="2,4,5")
    parser.add_argument("--frames", type=int, help="only the first N of each video")
    parser.add_argument("--table", action="store_true", help="print what the output has")
    parser.add_argument("--rates", default="0.01,0.02,0.03", help="bits per pixel of the table")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the table too")
    arguments = parser.parse_args()
    rates = [float(rate) for rate in arguments.rates.split(",")]
    try:
        if arguments.plot is not None:
            check_matplotlib()
        lines = read_lines(arguments.out)
        if arguments.videos:
            torch.set_num_threads(1)
            meter = make_meter(
                folder=arguments.lpips_weights, every=EVERY, vgg_every=VGG_EVERY, centred=True, dists=False
            )
            if meter.missing.get("lpips_alex") or meter.missing.get("lpips_vgg"):
                parser.error(f"LPIPS has no backbones: {meter.missing}")
            sizes = [
                Size(model, style) for model in arguments.models.split(",") for style in arguments.styles.split(",")
            ]
            qualities = [int(quality) for quality in arguments.qualities.split(",")]
            done = {key_of(line) for line in lines}
            with arguments.out.open("a") as target:
                for video in arguments.videos:
                    for line in measured(video, sizes, qualities, frames=arguments.frames, meter=meter, done=done):
                        print(json.dumps(line), file=target, flush=True)
                        lines.append(line)
        if arguments.table and lines:
            rows = rows_of(lines, rates)
            print(markdown(rows, rates))
            if arguments.plot is not None:
                draw(rows, rates, arguments.plot)
    except TokcodecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
