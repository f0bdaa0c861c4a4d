"""`eval`: how good a model is, beside x265."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import (
    Device,
    Effort,
    Entropy,
    Force,
    Json,
    LpipsPrecision,
    Prior,
    Quiet,
    Style,
    Verbose,
    console_of,
    precision_of,
)
from tokcodec.errors import UsageError


@app.command(name="eval", short_help="Rate and quality over a folder, beside x265.")
def evaluate(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="A folder of videos never trained on.")],
    qualities: Annotated[str, typer.Option("--qualities", help="Quality levels to measure.")] = "1,2,3,4,5,6",
    bpp: Annotated[
        str | None,
        typer.Option("--bpp", metavar="LIST", help="Bits per pixel to encode each clip at, instead of quality levels."),
    ] = None,
    trim_from: Annotated[
        int | None,
        typer.Option(
            "--trim-from", metavar="Q", min=1, max=6, help="With --bpp: encode at quality Q and trim to the rates."
        ),
    ] = None,
    effort: Effort = 1,
    entropy: Entropy = "auto",
    prior: Prior = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Model name or weights file.")] = None,
    style: Style = "auto",
    frames: Annotated[
        int | None, typer.Option("--frames", metavar="N", min=1, help="Only the first N frames of each clip.")
    ] = None,
    every: Annotated[int, typer.Option("--every", metavar="N", min=1, help="LPIPS and DISTS on every Nth frame.")] = 1,
    lpips_weights: Annotated[
        Path | None,
        typer.Option(
            "--lpips-weights",
            metavar="DIR",
            help="Holds alexnet_features.safetensors and vgg16_features.safetensors; torch's cache is looked at too.",
        ),
    ] = None,
    lpips_download: Annotated[
        bool,
        typer.Option(
            "--lpips-download", help="Download the backbones of LPIPS and DISTS (0.8 GB) if they are not there."
        ),
    ] = False,
    lpips_precision: LpipsPrecision = "float32",
    anchor: Annotated[bool, typer.Option("--anchor/--no-anchor", help="Measure x265 medium too.")] = True,
    crfs: Annotated[
        str, typer.Option("--anchor-crf", metavar="LIST", help="Constant rate factors of x265.")
    ] = "28,33,38,44,51",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="A line of JSON a measurement; run again to go on where it stopped."
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the curves into a PNG.")] = None,
    device: Device = "auto",
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure rate and quality over a folder, and x265 at the same rates: means over clips at each quality level."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    say = console.debug if json_results else console.note
    levels, factors = _whole_numbers(qualities), _factors(crfs) if anchor else ()
    rates = () if bpp is None else _rates(bpp)
    precision = precision_of(lpips_precision)
    from tokcodec.codec import DEFAULT_CHUNK_FRAMES, Codec
    from tokcodec.evaluation import EvalSettings, RecordStore, find_clips
    from tokcodec.evaluation import evaluate as measure_all
    from tokcodec.evaluation.plot import check_matplotlib, draw
    from tokcodec.evaluation.report import make_report
    from tokcodec.metrics.meter import make_meter
    from tokcodec.output import atomic, check_target
    from tokcodec.pipeline import EncodeSettings
    from tokcodec.weights import default_entry, find_by_name

    for level in levels:
        EncodeSettings(quality=level, effort=effort, chunk_frames=DEFAULT_CHUNK_FRAMES)
    if plot is not None:
        check_matplotlib()
        check_target(plot, force=force, source=out)
    settings = EvalSettings(
        qualities=levels, effort=effort, crfs=factors, max_frames=frames, rates=rates, trimmed_from=trim_from or 0
    )
    clips = find_clips(data)
    store = RecordStore(out)
    entry = default_entry() if model is None else find_by_name(model)
    codec = Codec(model=model, weights=entry.path, device=device, entropy=entropy, prior=prior, style=style)
    meter = make_meter(
        folder=lpips_weights, download=lpips_download, every=every, device=codec.device, precision=precision
    )
    for name, reason in meter.missing.items():
        console.note(f"{name} is not measured: {reason}")
    records = measure_all(clips, codec, meter, settings, model_sha256=entry.sha256, store=store, say=say)
    report = make_report(
        records, missing=meter.missing, lpips_every=every, max_frames=frames, lpips_precision=precision
    )
    if plot is not None:
        with atomic(plot, force=force) as picture:
            draw(report, picture)
    console.result(report.values(), report.lines())


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(level) for level in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a list of quality levels", hint="for example 1,3,6") from error


def _rates(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(rate) for rate in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a list of bits per pixel", hint="for example 0.01,0.02,0.04") from error


def _factors(text: str) -> tuple[float, ...]:
    try:
        factors = tuple(sorted({float(factor) for factor in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a list of constant rate factors", hint="for example 30,40,50") from error
    if not all(0 <= factor <= 51 for factor in factors):
        raise UsageError("constant rate factors of x265 are 0 to 51", hint="for example 30,40,50")
    return factors
