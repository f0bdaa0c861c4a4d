"""`encode`, `decode` and `demo`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import (
    Device,
    Duration,
    Effort,
    Entropy,
    Force,
    Forecast,
    Jobs,
    Json,
    NoAudio,
    Prior,
    Quiet,
    Start,
    Style,
    Verbose,
    Weights,
    checked_output,
    console_of,
    input_of,
)
from tokcodec.console import Console
from tokcodec.errors import IncompleteError, UsageError

if TYPE_CHECKING:
    from tokcodec.rate import Rate
    from tokcodec.results import CodecResult


VIDEO_BYTES, TOK_BYTES = 1_000_000, 32_000
"""Of sources that look long enough for several processes."""


def _one_thread_for_numpy() -> None:
    """Before NumPy is loaded: its products are small when videos are coded, and threads that wait for the next one slow
    down what is done meanwhile. What a person has set stays."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _prepare(jobs: int | None, source: str, *, least_bytes: int) -> None:
    """Let processes begin to load while this one does."""
    from tokcodec import workers

    workers.prepare(jobs, Path(source), least_bytes=least_bytes)


def _codec_values(result: CodecResult) -> dict[str, Any]:
    from tokcodec.inspection import damage_dict

    values = dataclasses.asdict(result)
    values["damages"] = [damage_dict(damage) for damage in result.damages]
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}


def _codec_lines(result: CodecResult) -> list[tuple[str, str]]:
    lines = [("frames", f"{result.frames} of {result.width}x{result.height}, in {result.chunks} chunks")]
    if result.tok_bytes is not None and result.bits_per_pixel is not None:
        lines.append(("size", f"{result.tok_bytes} bytes, {result.bits_per_pixel:.4f} bits per pixel"))
    if result.rate is not None:
        lines.append(("rate", result.rate.line()))
    if result.concealed:
        lines.append(("filled in", f"{result.concealed} of these frames"))
    speed = result.frames / max(1e-9, result.seconds)
    lines.append(
        (
            "time",
            f"{result.seconds:.2f} s, {speed:.1f} frames/s (tokenizer {result.tokenizer_seconds:.2f} s, "
            f"entropy coding {result.entropy_coding_seconds:.2f} s)",
        )
    )
    return lines


@app.command(short_help="Video or picture to .tok file.")
def encode(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A video or a picture; - is y4m on standard input.")],
    target: Annotated[str, typer.Argument(metavar="OUTPUT.tok", help="The .tok file; - is standard output.")],
    quality: Annotated[
        int | None,
        typer.Option(
            "--quality", "-Q", min=1, max=6, show_default="6", help="1 is the smallest file, 6 the best picture."
        ),
    ] = None,
    bpp: Annotated[
        float | None, typer.Option("--bpp", metavar="X", help="Instead of a quality: bits per pixel of the file.")
    ] = None,
    kbps: Annotated[
        float | None, typer.Option("--kbps", metavar="X", help="Instead of a quality: kilobits per second.")
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-bytes", metavar="N", help="Instead of a quality: no more bytes than these, audio included."
        ),
    ] = None,
    multi_pass: Annotated[
        bool,
        typer.Option("--multi-pass", help="With --bpp or --kbps: one quality for the whole file, in several passes."),
    ] = False,
    effort: Effort = 1,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Model name or weights file.")] = None,
    chunk_frames: Annotated[
        int, typer.Option("--chunk-frames", metavar="1+4t", help="Most frames of a chunk, the unit of seeking.")
    ] = 65,
    scene_cuts: Annotated[
        bool, typer.Option("--scene-cuts/--no-scene-cuts", help="Begin a chunk where a scene begins, too.")
    ] = True,
    entropy: Entropy = "auto",
    prior: Prior = None,
    start: Start = 0.0,
    duration: Duration = None,
    no_audio: NoAudio = False,
    device: Device = "auto",
    jobs: Jobs = None,
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode a video or a picture into a .tok file."""
    _one_thread_for_numpy()
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results, data_on_stdout=target == "-")
    rate = _rate(quality, bpp=bpp, kbps=kbps, max_bytes=max_bytes, multi_pass=multi_pass)
    sink = checked_output(target, source=source, force=force)
    if device != "cuda" and rate is None:
        _prepare(jobs, source, least_bytes=VIDEO_BYTES)
    from tokcodec.codec import Codec

    place = input_of(source)
    codec = Codec(model=model, device=device, entropy=entropy, prior=prior, jobs=jobs)
    console.debug(f"device {codec.device}")
    with console.progress("encode") as update:
        result = codec.encode(
            place,
            sink,
            quality=quality,
            rate=rate,
            effort=effort,
            chunk_frames=chunk_frames,
            scene_cuts=scene_cuts,
            start_seconds=start,
            duration_seconds=duration,
            audio=not no_audio,
            force=force,
            progress=update,
        )
    _say(console, result, source)


def _rate(
    quality: int | None, *, bpp: float | None, kbps: float | None, max_bytes: int | None, multi_pass: bool
) -> Rate | None:
    """The rate that the options ask for; None where a quality is taken."""
    from tokcodec.rate import Rate

    given = {"--quality": quality, "--bpp": bpp, "--kbps": kbps, "--max-bytes": max_bytes}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} exclude each other", hint="give one of them")
    if bpp is None and kbps is None and max_bytes is None:
        if multi_pass:
            raise UsageError("--multi-pass needs a rate", hint="add --bpp or --kbps")
        return None
    return Rate(bits_per_pixel=bpp, kilobits_per_second=kbps, max_bytes=max_bytes, multi_pass=multi_pass)


@app.command(short_help=".tok file to video or pictures.")
def decode(
    source: Annotated[str, typer.Argument(metavar="INPUT.tok", help="The .tok file; - is standard input.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="An mp4, mov, mkv, webm, y4m or png file, or a folder for PNGs; - is y4m on stdout.",
        ),
    ],
    codec_name: Annotated[
        str | None,
        typer.Option("--codec", metavar="NAME", help="Encoder of the output: libx264, ffv1, libvpx-vp9 …"),
    ] = None,
    crf: Annotated[float | None, typer.Option("--crf", help="Its constant rate factor.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="A further option of the encoder."),
    ] = None,
    start: Start = 0.0,
    duration: Duration = None,
    no_audio: NoAudio = False,
    conceal: Annotated[
        bool, typer.Option("--conceal", help="Fill in what is lost, from what comes before it.")
    ] = False,
    forecast: Forecast = False,
    style: Style = "auto",
    weights: Weights = None,
    prior: Prior = None,
    device: Device = "auto",
    jobs: Jobs = None,
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Decode a .tok file into a video file; what is damaged is left out, or filled in by --conceal, and reported."""
    _one_thread_for_numpy()
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results, data_on_stdout=target == "-")
    if forecast and not conceal:
        raise UsageError("--forecast says how --conceal fills in", hint="add --conceal")
    options = dict(_key_value(text) for text in option or [])
    sink = checked_output(target, source=source, force=force)
    if isinstance(sink, str):
        from tokcodec.frames import format_for

        format_for(sink)
    if device != "cuda" and not conceal:
        _prepare(jobs, source, least_bytes=TOK_BYTES)
    from tokcodec.codec import Codec

    place = input_of(source)
    codec = Codec(weights=weights, device=device, prior=prior, style=style, jobs=jobs)
    console.debug(f"device {codec.device}")
    with console.progress("decode") as update:
        result = codec.decode(
            place,
            sink,
            codec=codec_name,
            crf=crf,
            options=options,
            start_seconds=start,
            duration_seconds=duration,
            audio=not no_audio,
            conceal=conceal,
            forecast=forecast,
            force=force,
            progress=update,
        )
    _say(console, result, source)


def _say(console: Console, result: CodecResult, source: str) -> None:
    """Notes, the result, and an error where parts of the input were lost."""
    for note in result.notes:
        console.note(note)
    console.result(_codec_values(result), _codec_lines(result))
    losses = [*result.lost, *(f"byte {damage.offset}: {damage.reason}" for damage in result.damages)]
    for loss in losses:
        console.note(f"lost: {loss}")
    if losses:
        raise IncompleteError(
            f"{len(losses)} {'part' if len(losses) == 1 else 'parts'} of the input could not be read; "
            "the rest was written",
            where=source,
            hint="get the file again; for a .tok file, `tokcodec verify` lists what is lost",
        )


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{text!r} is not KEY=VALUE")
    return key, value


@app.command(short_help="Watch it work on real photographs.")
def demo(
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the files go; tokcodec-demo, or -2, -3 ... beside it."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.2, max=60.0, help="Length of the clip.")] = 3.0,
    style: Style = "auto",
    device: Device = "auto",
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a short clip from real photographs, encode it, decode it, and say how well that went."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    from tokcodec.codec import Codec
    from tokcodec.demo import free_folder, run_demo

    result = run_demo(folder or free_folder(), Codec(device=device, style=style), seconds=seconds)
    encoded, decoded = result.encoded, result.decoded_result
    raw_bytes = 3 * encoded.frames * encoded.width * encoded.height
    values = {
        "frames": encoded.frames,
        "width": encoded.width,
        "height": encoded.height,
        "tok_bytes": encoded.tok_bytes,
        "bits_per_pixel": encoded.bits_per_pixel,
        "psnr_db": result.psnr,
        "encode_seconds": encoded.seconds,
        "decode_seconds": decoded.seconds,
        "original": str(result.original),
        "tok": str(result.tok),
        "decoded": str(result.decoded),
        "picture": str(result.picture),
    }
    lines = [
        ("clip", f"{encoded.frames} frames of {encoded.width}x{encoded.height}, {raw_bytes} bytes as RGB"),
        ("coded", f"{encoded.tok_bytes} bytes, {encoded.bits_per_pixel:.4f} bits per pixel"),
        ("PSNR", f"{result.psnr:.2f} dB"),
        ("encode", f"{encoded.seconds:.2f} s, {encoded.frames / encoded.seconds:.1f} frames/s"),
        ("decode", f"{decoded.seconds:.2f} s, {decoded.frames / decoded.seconds:.1f} frames/s"),
        ("original", str(result.original)),
        ("coded file", str(result.tok)),
        ("decoded", str(result.decoded)),
        ("side by side", str(result.picture)),
    ]
    console.result(values, lines)
