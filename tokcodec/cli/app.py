"""The typer application that the command modules register themselves with."""

from __future__ import annotations

from typing import Annotated

import typer

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


def _version(wanted: bool) -> None:
    if wanted:
        from tokcodec import __version__

        typer.echo(f"tokcodec {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    pass
