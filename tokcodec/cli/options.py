"""Options that several commands share, and what they become."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from tokcodec.console import Console
from tokcodec.errors import UsageError

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more; tracebacks of bugs too.")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where the network runs.")]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="The weights that the .tok file was made with."),
]
NoAudio = Annotated[bool, typer.Option("--no-audio", help="Leave audio and subtitles behind.")]
Start = Annotated[float, typer.Option("--start", metavar="SECONDS", min=0.0, help="Leave out what comes before.")]
Duration = Annotated[
    float | None,
    typer.Option("--duration", metavar="SECONDS", help="Leave out what comes so long after the start."),
]


def verbosity_of(quiet: bool, verbose: bool) -> int:
    """What `Console` takes: -1, 0 or 1."""
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other")
    return -1 if quiet else int(verbose)


def input_of(name: str) -> Path | BinaryIO:
    """A path, or standard input for `-`."""
    return sys.stdin.buffer if name == "-" else Path(name)


def output_of(name: str) -> str | BinaryIO:
    """A name, or standard output for `-`, which must not be a terminal."""
    if name != "-":
        return name
    if sys.stdout.isatty():
        raise UsageError("binary data does not go to a terminal", hint="name a file, or pipe it on")
    return sys.stdout.buffer


def frames_of_media(source: Path | BinaryIO) -> int | None:
    """The number of frames that a media file claims, for the progress bar."""
    if not isinstance(source, Path):
        return None
    from tokcodec.frames import open_video

    with open_video(source, side_streams=False) as reader:
        return reader.info.frame_count_hint


def frames_of_tok(source: Path | BinaryIO) -> int | None:
    """The number of frames in a `.tok` file, for the progress bar."""
    if not isinstance(source, Path):
        return None
    from tokcodec.container import find_chunk_index
    from tokcodec.inspection import open_tok

    with open_tok(source) as stream:
        return find_chunk_index(stream).total_frames


@contextmanager
def progress_of(
    console: Console, label: str, source: Path | BinaryIO, count: Callable[[Path | BinaryIO], int | None]
) -> Iterator[Callable[[int], None] | None]:
    """A progress bar whose total `count` finds, where anybody is looking."""
    total = count(source) if console.verbosity >= 0 and sys.stderr.isatty() else None
    with console.progress(label, total) as update:
        yield update
