"""Options that several commands share, and what they become."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from tokcodec.console import Console
from tokcodec.errors import UsageError

if TYPE_CHECKING:
    from tokcodec.metrics.backbones import Precision

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an existing output.")]
Effort = Annotated[
    int,
    typer.Option(
        "--effort",
        min=0,
        max=3,
        help="0: the same bits everywhere, but for first pictures and residuals; 1: where they do most "
        "good; 2, 3: more is tried, many times slower (some weights refine their bits).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more; tracebacks of bugs too.")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where the network runs.")]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="The weights that the .tok file was made with."),
]
Entropy = Annotated[
    str,
    typer.Option(
        "--entropy",
        metavar="MODEL",
        help="Probability model: adaptive, prior, prior-autoregressive (a little smaller, many times slower), or auto, "
        "which is prior where one comes with the model.",
    ),
]
Prior = Annotated[
    str | None,
    typer.Option("--prior", metavar="FILE", help="Weights of the probability model prior: a name or a file."),
]
Style = Annotated[
    str,
    typer.Option(
        "--style",
        metavar="auto|faithful|vivid|light|FILE",
        help="Pictures as the decoder has them (faithful), or sharper and a little farther from the original (vivid, "
        "and auto where the model has a filter for that; light does nearly the same in less time).",
    ),
]
Forecast = Annotated[
    bool, typer.Option("--forecast", help="Show what the tokenizer expects next, even where there is a prior.")
]
LpipsPrecision = Annotated[
    str,
    typer.Option(
        "--lpips-precision",
        metavar="float32|bfloat16",
        help="Of the convolutions of LPIPS and DISTS; bfloat16 is faster where the CPU has it, and a little off.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        show_default="by the processors",
        help="Processes that code chunks beside each other, on a CPU, as far as there is memory; not where a rate is "
        "asked for, nor with --conceal.",
    ),
]
NoAudio = Annotated[bool, typer.Option("--no-audio", help="Leave audio and subtitles behind.")]
Start = Annotated[float, typer.Option("--start", metavar="SECONDS", min=0.0, help="Leave out what comes before.")]
Duration = Annotated[
    float | None,
    typer.Option("--duration", metavar="SECONDS", help="Leave out what comes so long after the start."),
]


def prior_file(name: str | None) -> Path | None:
    """The file that `--prior` names for reading a `.tok` file; the names of installed ones need no mention."""
    return Path(name) if name is not None and name.endswith(".safetensors") else None


def precision_of(name: str) -> Precision:
    """What `--lpips-precision` names.

    Raises:
        UsageError: It is no precision.
    """
    if name == "float32":
        return "float32"
    if name == "bfloat16":
        return "bfloat16"
    raise UsageError(f"there is no precision {name!r}", hint="float32 or bfloat16")


def console_of(*, quiet: bool, verbose: bool, json_results: bool = False, data_on_stdout: bool = False) -> Console:
    """The console that the options ask for."""
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other", hint="leave one away")
    verbosity = -1 if quiet else int(verbose)
    return Console(json_results=json_results, verbosity=verbosity, results_to_stderr=data_on_stdout)


def input_of(name: str) -> Path | BinaryIO:
    """A path, or standard input for `-`."""
    return sys.stdin.buffer if name == "-" else Path(name)


def output_of(name: str) -> str | BinaryIO:
    """A name, or standard output for `-`, which must not be a terminal."""
    if not name:
        raise UsageError("the output has no name", hint="name a file, or - for standard output")
    if name != "-":
        return name
    if sys.stdout.isatty():
        raise UsageError("binary data does not go to a terminal", hint="name a file, or pipe it on")
    return sys.stdout.buffer


def checked_output(name: str, *, source: str, force: bool) -> str | BinaryIO:
    """As :func:`output_of`; a file that may not be written is refused before anything heavy is imported."""
    from tokcodec.output import check_target

    sink = output_of(name)
    if isinstance(sink, str):
        check_target(Path(sink), force=force, source=source)
    return sink
