"""What each probability model makes of the tokens of one's own videos.

    python bench/prior_gain.py FILE_OR_FOLDER... [--prior PRIOR] [--checkpoint CHECKPOINT] [--qualities 1,2,3,4,5,6]

Encodes each video at each quality, codes the same tokens with every model, and prints a table: bits of each token
raw, by `adaptive`, by `prior`, by the prior's integer network alone (ideal code length), and, with the checkpoint that
the prior was exported from, by the float model before it was made integer. A JSON line of each video and quality goes
to standard error. Never on what the prior was trained on.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tokcodec import Codec
from tokcodec.codec import DEFAULT_EFFORT
from tokcodec.probability.prior_config import PriorConfig
from tokcodec.tokens import TokenChunk
from tokcodec.tokenset import read_chunks
from tokcodec.training.prior_measure import PriorReport, measure_prior
from tokcodec.training.prior_model import PriorModel
from tokcodec.weights import default_entry
from tokcodec.weights.priors import choose_prior, load_prior

SUMMED = [field.name for field in dataclasses.fields(PriorReport)]


def videos(names: Sequence[Path]) -> Iterator[Path]:
    """The files, and those of folders."""
    for name in names:
        yield from sorted(name.glob("*.mp4")) if name.is_dir() else [name]


def float_model(checkpoint: Path) -> PriorModel:
    """The model of a checkpoint of `tokcodec train-prior`."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = PriorModel(PriorConfig.from_json(saved["prior_config"]))
    model.load_state_dict(saved["model"])
    return model.eval()


def chunks_of(codec: Codec, video: Path, *, quality: int, effort: int, seconds: float | None) -> list[TokenChunk]:
    """The tokens of a video, encoded through a real file."""
    with tempfile.TemporaryDirectory() as folder:
        coded = Path(folder) / "a.tok"
        codec.encode(video, coded, quality=quality, effort=effort, duration_seconds=seconds, audio=False)
        return list(read_chunks(io.BytesIO(coded.read_bytes())))


def total(reports: Sequence[PriorReport]) -> PriorReport:
    """Sums; None where one has none."""
    sums: dict[str, Any] = {}
    for name in SUMMED:
        values = [getattr(report, name) for report in reports]
        sums[name] = None if None in values else sum(values)
    return PriorReport(**sums)


def row(label: str, report: PriorReport) -> str:
    """A line of the table."""

    def share(bits: float | None) -> str:
        return "" if bits is None else f"{bits / report.tokens:.3f} ({bits / report.raw_bits:.1%})"

    rounding = ""
    if report.float_ideal_bits is not None:
        rounding = f"{report.integer_ideal_bits / report.float_ideal_bits - 1:+.3%}"
    saved = f"{1 - report.prior_bits / report.adaptive_bits:.1%}"
    cells = [
        label,
        f"{report.raw_bits / report.tokens:.3f}",
        *(share(bits) for bits in (report.adaptive_bits, report.prior_bits, report.integer_ideal_bits)),
        share(report.float_ideal_bits),
        rounding,
        saved,
        f"{report.motion_bits / report.tokens:.3f}",
        f"{report.adaptive_seconds:.1f}",
        f"{report.prior_seconds:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--prior", help="name or file; by default what comes with the model")
    parser.add_argument("--checkpoint", type=Path, help="of the float model that the prior was exported from")
    parser.add_argument("--qualities", default="1,2,3,4,5,6")
    parser.add_argument("--effort", type=int, choices=range(4), default=DEFAULT_EFFORT)
    parser.add_argument("--autoregressive", action="store_true", help="the slow order too, on a line of its own")
    parser.add_argument("--seconds", type=float, help="of each video")
    arguments = parser.parse_args()
    network = load_prior(choose_prior(arguments.prior, tokenizer=default_entry().sha256))
    model = None if arguments.checkpoint is None else float_model(arguments.checkpoint)
    codec = Codec(device="cpu", entropy="adaptive")
    names = "quality | raw | adaptive | prior | integers alone | floats alone | rounding | below adaptive | motion"
    print(f"| {names} | adaptive, s | prior, s |")
    print("|---" * 11 + "|")
    for quality in (int(text) for text in arguments.qualities.split(",")):
        reports = []
        for video in videos(arguments.videos):
            chunks = chunks_of(codec, video, quality=quality, effort=arguments.effort, seconds=arguments.seconds)
            reports.append(measure_prior(network, chunks, model=model, autoregressive=arguments.autoregressive))
            line = {"video": video.name, "quality": quality, **dataclasses.asdict(reports[-1])}
            print(json.dumps(line), file=sys.stderr, flush=True)
        print(row(str(quality), total(reports)), flush=True)
        if arguments.autoregressive:
            whole = total(reports)
            slow, seconds = whole.autoregressive_bits or 0, whole.autoregressive_seconds or 0.0
            print(f"quality {quality}, autoregressive: {slow / whole.raw_bits:.1%} of raw, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
