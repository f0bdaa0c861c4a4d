"""The command line: parse, call, exit code. Heavy imports happen inside the commands."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from tokcodec.console import Console
from tokcodec.errors import IncompleteError, TokcodecError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokcodec.codec import CodecResult
    from tokcodec.inspection import Inspection

EXIT_CODES = """Exit codes:  0 fine, 1 a bug in tokcodec, 2 wrong usage, 3 the media file cannot be read,
4 the .tok file is damaged, 5 the .tok file needs a later version, 6 weights are missing or damaged,
7 the output exists or cannot be written, 8 the device is not there, 9 a limit was reached,
10 the output was written but parts of the input were lost, 130 interrupted, 143 terminated."""

app = typer.Typer(
    name="tokcodec",
    help="A neural video codec whose compressed form is the tokens of a language model.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more; tracebacks of bugs too.")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where the network runs.")]
Weights = Annotated[
    Path | None, typer.Option("--weights", metavar="FILE", help="The weights that the .tok file was made with.")
]
NoAudio = Annotated[bool, typer.Option("--no-audio", help="Leave audio and subtitles behind.")]
Start = Annotated[float, typer.Option("--start", metavar="SECONDS", min=0.0, help="Leave out what comes before.")]
Duration = Annotated[
    float | None, typer.Option("--duration", metavar="SECONDS", help="Leave out what comes so long after the start.")
]


class _TerminatedError(BaseException):
    """SIGTERM or SIGHUP arrived; temporary outputs are removed on the way out."""


def main() -> None:
    """Run the command line; every error becomes a message and an exit code."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _on_terminate)
    try:
        code = app(standalone_mode=False)
    except TokcodecError as error:
        Console().error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except _TerminatedError:
        code = 143
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads what we wrote, as with `| head`
        code = 141
    except Exception as error:
        code = _framework_or_bug(error)
    sys.exit(code if isinstance(code, int) else 0)


def _on_terminate(*_: object) -> None:
    raise _TerminatedError


def _framework_or_bug(error: Exception) -> int:
    """Usage errors of the framework keep its message and code; anything else is a bug."""
    show = getattr(error, "show", None)
    code = getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):
        show()
        return code
    if isinstance(error, RuntimeError) and type(error).__name__ == "Abort":
        return 130
    if "-v" in sys.argv or "--verbose" in sys.argv:
        import traceback

        traceback.print_exc()
    else:
        print(f"error: this is a bug in tokcodec: {type(error).__name__}: {error}", file=sys.stderr)
        print("hint: run again with -v and report what it prints", file=sys.stderr)
    return 1


def _verbosity(quiet: bool, verbose: bool) -> int:
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other")
    return -1 if quiet else int(verbose)


def _input(name: str) -> Path | BinaryIO:
    return sys.stdin.buffer if name == "-" else Path(name)


def _output(name: str) -> str | BinaryIO:
    if name != "-":
        return name
    if sys.stdout.isatty():
        raise UsageError("binary data does not go to a terminal", hint="name a file, or pipe it on")
    return sys.stdout.buffer


def _frames_of_media(source: Path | BinaryIO) -> int | None:
    """The number of frames that a media file claims, for the progress bar."""
    if not isinstance(source, Path):
        return None
    from tokcodec.frames import open_video

    with open_video(source, side_streams=False) as reader:
        return reader.info.frame_count_hint


def _frames_of_tok(source: Path | BinaryIO) -> int | None:
    if not isinstance(source, Path):
        return None
    from tokcodec.container import find_chunk_index
    from tokcodec.inspection import open_tok

    with open_tok(source) as stream:
        return find_chunk_index(stream).total_frames


@contextmanager
def _progress(
    console: Console, label: str, source: Path | BinaryIO, count: Callable[[Path | BinaryIO], int | None]
) -> Iterator[Callable[[int], None] | None]:
    total = count(source) if console.verbosity >= 0 and sys.stderr.isatty() else None
    with console.progress(label, total) as update:
        yield update


def _codec_values(result: CodecResult) -> dict[str, Any]:
    from tokcodec.inspection import damage_dict

    values = dataclasses.asdict(result)
    values["damages"] = [damage_dict(damage) for damage in result.damages]
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}


def _codec_lines(result: CodecResult) -> list[tuple[str, str]]:
    lines = [("frames", f"{result.frames} of {result.width}x{result.height}, in {result.chunks} chunks")]
    if result.tok_bytes is not None and result.bits_per_pixel is not None:
        lines.append(("size", f"{result.tok_bytes} bytes, {result.bits_per_pixel:.4f} bits per pixel"))
    rate = result.frames / max(1e-9, result.seconds)
    lines.append(
        (
            "time",
            f"{result.seconds:.2f} s, {rate:.1f} frames/s (tokenizer {result.tokenizer_seconds:.2f} s, "
            f"entropy coding {result.entropy_coding_seconds:.2f} s)",
        )
    )
    return lines


@app.command()
def encode(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A video or a picture; - is y4m on standard input.")],
    target: Annotated[str, typer.Argument(metavar="OUTPUT.tok", help="The .tok file; - is standard output.")],
    quality: Annotated[
        int, typer.Option("--quality", "-Q", min=1, max=6, help="1 is the smallest file, 6 the best picture.")
    ] = 6,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Model name or weights file.")] = None,
    chunk_frames: Annotated[
        int, typer.Option("--chunk-frames", metavar="1+4t", help="Frames of a chunk, the unit of seeking.")
    ] = 65,
    start: Start = 0.0,
    duration: Duration = None,
    no_audio: NoAudio = False,
    device: Device = "auto",
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode a video or a picture into a .tok file."""
    console = Console(
        json_results=json_results, verbosity=_verbosity(quiet, verbose), results_to_stderr=target == "-"
    )
    sink = _output(target)
    if isinstance(sink, str):
        from tokcodec.output import check_target

        check_target(Path(sink), force=force)
    from tokcodec.codec import Codec

    place = _input(source)
    codec = Codec(model=model, device=device)
    console.debug(f"device {codec.device}")
    with _progress(console, "encode", place, _frames_of_media) as update:
        result = codec.encode(
            place,
            sink,
            quality=quality,
            chunk_frames=chunk_frames,
            start_seconds=start,
            duration_seconds=duration,
            audio=not no_audio,
            force=force,
            progress=update,
        )
    for note in result.notes:
        console.note(note)
    console.result(_codec_values(result), _codec_lines(result))


@app.command()
def decode(
    source: Annotated[str, typer.Argument(metavar="INPUT.tok", help="The .tok file; - is standard input.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT", help="An mp4, mov, mkv, webm, y4m or png file, or a folder for PNGs; - is y4m on stdout."
        ),
    ],
    codec_name: Annotated[
        str | None, typer.Option("--codec", metavar="NAME", help="Encoder of the output: libx264, ffv1, libvpx-vp9 …")
    ] = None,
    crf: Annotated[float | None, typer.Option("--crf", help="Its constant rate factor.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="A further option of the encoder.")
    ] = None,
    start: Start = 0.0,
    duration: Duration = None,
    no_audio: NoAudio = False,
    weights: Weights = None,
    device: Device = "auto",
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Decode a .tok file into a video file; what is damaged is left out and reported."""
    console = Console(
        json_results=json_results, verbosity=_verbosity(quiet, verbose), results_to_stderr=target == "-"
    )
    options = dict(_key_value(text) for text in option or [])
    sink = _output(target)
    if isinstance(sink, str):
        from tokcodec.frames import format_for
        from tokcodec.output import check_target

        format_for(sink)
        check_target(Path(sink), force=force)
    from tokcodec.codec import Codec

    place = _input(source)
    codec = Codec(weights=weights, device=device)
    console.debug(f"device {codec.device}")
    with _progress(console, "decode", place, _frames_of_tok) as update:
        result = codec.decode(
            place,
            sink,
            codec=codec_name,
            crf=crf,
            options=options,
            start_seconds=start,
            duration_seconds=duration,
            audio=not no_audio,
            force=force,
            progress=update,
        )
    for note in result.notes:
        console.note(note)
    console.result(_codec_values(result), _codec_lines(result))
    if result.damages:
        for damage in result.damages:
            console.note(f"lost at byte {damage.offset}: {damage.reason}")
        raise IncompleteError(
            f"{len(result.damages)} parts of the stream were lost; the rest was written",
            where=source,
            hint="get the file again; `tokcodec verify` lists what is lost",
        )


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{text!r} is not KEY=VALUE")
    return key, value


def _inspection_lines(found: Inspection) -> list[tuple[str, str]]:
    header = found.header
    rate = "" if header.frame_rate is None else f", {float(header.frame_rate):.6g} frames/s"
    kind = "still image" if header.still_image else "video"
    timing = "" if found.regular else ", variable frame rate"
    lines = [
        ("kind", f"{kind}, {header.width}x{header.height}{rate}{timing}"),
        ("frames", f"{found.frames} in {found.chunks} chunks, {found.duration_seconds:.3f} s"),
        ("size", f"{found.file_bytes} bytes"),
    ]
    if found.bits_per_pixel is not None:
        lines[-1] = ("size", f"{found.file_bytes} bytes, {found.bits_per_pixel:.4f} bits per pixel")
    if found.raw_token_bits:
        share = 8 * found.token_bytes / found.raw_token_bits
        lines.append(("tokens", f"{found.token_bytes} bytes coded, {share:.1%} of {found.raw_token_bits} raw bits"))
    lines.append(("model", f"{header.tokenizer_name} (SHA-256 {header.tokenizer_digest.hex()[:12]}…)"))
    lines.extend(
        ("stream", f"{side.codec}{f' ({side.language})' if side.language else ''}, unchanged")
        for side in header.side_streams
    )
    return lines


@app.command()
def info(
    source: Annotated[str | None, typer.Argument(metavar="FILE.tok", help="The .tok file; - is standard input.")] = None,
    model: Annotated[
        bool, typer.Option("--model", help="Describe the default model (or FILE.safetensors) instead.")
    ] = False,
    json_results: Json = False,
) -> None:
    """Say what a .tok file holds, or what a model costs."""
    console = Console(json_results=json_results)
    if model:
        _describe_model(console, source)
        return
    if source is None:
        raise UsageError("no file was named", hint="tokcodec info FILE.tok, or tokcodec info --model")
    found = _survey(source, check_tokens=False)
    console.result(found.to_dict(), _inspection_lines(found))
    _report_damage(console, found, source)


def _survey(source: str, *, check_tokens: bool) -> Inspection:
    from tokcodec.inspection import open_tok, survey

    if source == "-":
        return survey(sys.stdin.buffer, check_tokens=check_tokens)
    with open_tok(Path(source)) as stream:
        return survey(stream, check_tokens=check_tokens)


def _report_damage(console: Console, found: Inspection, source: str) -> None:
    for damage in found.damages:
        console.note(f"lost at byte {damage.offset}: {damage.reason}")
    if not found.complete:
        raise IncompleteError(
            "the file is not whole", where=source, hint="get it again, or decode what is left of it"
        )


def _describe_model(console: Console, name: str | None) -> None:
    from tokcodec.tokenizer.cost import measure_cost
    from tokcodec.weights import default_entry, find_by_name, load_tokenizer

    entry = default_entry() if name is None else find_by_name(name)
    loaded = load_tokenizer(entry)
    cost = measure_cost(loaded)
    values = {
        "name": entry.name,
        "sha256": entry.sha256,
        "config": dataclasses.asdict(loaded.config),
        **dataclasses.asdict(cost),
    }
    lines = [
        ("model", f"{entry.name} (SHA-256 {entry.sha256})"),
        ("encoder", f"{cost.encoder_flops_per_pixel / 1e3:.1f} kFLOPs/pixel, {cost.encoder_parameters:,} parameters"),
        ("decoder", f"{cost.decoder_flops_per_pixel / 1e3:.1f} kFLOPs/pixel, {cost.decoder_parameters:,} parameters"),
        ("tokens", f"{loaded.config.bits_per_token} bits for each 8x8 pixels of four frames"),
    ]
    console.result(values, lines)


@app.command()
def verify(
    source: Annotated[str, typer.Argument(metavar="FILE.tok", help="The .tok file; - is standard input.")],
    json_results: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check every chunk of a .tok file, tokens included, without decoding pixels."""
    console = Console(json_results=json_results, verbosity=-1 if quiet else 0)
    found = _survey(source, check_tokens=True)
    state = "every chunk is whole" if found.complete else "damaged"
    console.result(found.to_dict(), [*_inspection_lines(found), ("state", state)])
    _report_damage(console, found, source)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")] = Path("tokcodec-demo"),
    seconds: Annotated[float, typer.Option("--seconds", min=0.2, max=60.0, help="Length of the clip.")] = 3.0,
    device: Device = "auto",
    force: Force = True,
    json_results: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a short clip from real photographs, encode it, decode it, and say how well that went."""
    console = Console(json_results=json_results, verbosity=-1 if quiet else 0)
    from tokcodec.codec import Codec
    from tokcodec.demo import run_demo

    result = run_demo(folder, Codec(device=device), seconds=seconds, force=force)
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


if __name__ == "__main__":
    main()
