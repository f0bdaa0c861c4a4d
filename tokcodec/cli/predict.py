"""`predict`: a video that goes on."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import (
    Device,
    Force,
    Forecast,
    Json,
    Prior,
    Quiet,
    Style,
    Verbose,
    Weights,
    checked_output,
    console_of,
)
from tokcodec.errors import IncompleteError, UsageError

SPOOL_BYTES = 1 << 26
"""Streams of up to so many bytes stay in memory on their way."""


@app.command(short_help="Let a video go on, by the learned prior.")
def predict(
    source: Annotated[str, typer.Argument(metavar="IN.tok", help="The .tok file; - is standard input.")],
    target: Annotated[
        str,
        typer.Argument(metavar="OUTPUT", help="A video as for decode, or a .tok file; - is a .tok stream on stdout."),
    ],
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", help="How much longer.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same one draws the same tokens everywhere.")] = 0,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, max=8.0, help="0: the likelier bits; 1: drawn as the prior says.")
    ] = 1.0,
    only: Annotated[bool, typer.Option("--only", help="Write just what is new, as a video.")] = False,
    forecast: Forecast = False,
    prior: Prior = None,
    weights: Weights = None,
    style: Style = "auto",
    device: Device = "auto",
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a video and its continuation, whose tokens are drawn from a prior, step after step.

    A last step that is not full (up to three frames) is drawn anew. With --forecast nothing is drawn: the tokenizer
    alone shows what it expects next.
    """
    is_tok = target == "-" or target.endswith(".tok")
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results, data_on_stdout=target == "-")
    if only and is_tok:
        raise UsageError("a .tok file needs what comes before", hint="leave --only away, or name a video")
    sink = checked_output(target, source=source, force=force)
    if isinstance(sink, str) and not is_tok:
        from tokcodec.frames import format_for

        format_for(sink)
    import shutil
    import sys
    import tempfile

    from tokcodec.inspection import damage_dict
    from tokcodec.output import atomic
    from tokcodec.prediction import predict as predict_stream
    from tokcodec.sources import open_tok

    with contextlib.ExitStack() as stack:

        def spool() -> BinaryIO:
            return cast("BinaryIO", stack.enter_context(tempfile.SpooledTemporaryFile(SPOOL_BYTES)))

        if source == "-":
            stream = spool()
            shutil.copyfileobj(sys.stdin.buffer, stream)
            stream.seek(0)
        else:
            stream = stack.enter_context(open_tok(Path(source)))
        if not isinstance(sink, str):
            place = sink
        elif is_tok:
            place = stack.enter_context(stack.enter_context(atomic(Path(sink), force=force, source=source)).open("wb"))
        else:
            place = spool()
        result = predict_stream(
            stream, place, seconds=seconds, seed=seed, temperature=temperature, prior=prior, forecast=forecast
        )
        notes, damages = list(result.notes), list(result.damages)
        if isinstance(sink, str) and not is_tok:
            from tokcodec.codec import Codec

            place.seek(0)
            decoded = Codec(weights=weights, device=device, prior=prior, style=style).decode(
                place, sink, start_seconds=result.start_seconds if only else 0.0, audio=not only, force=force
            )
            notes += decoded.notes
            damages += decoded.damages
    if result.replaced:
        notes.append(f"frames of the original that did not fill a step and were made anew: the last {result.replaced}")
    for note in notes:
        console.note(note)
    values = dataclasses.asdict(result)
    values["damages"] = [damage_dict(damage) for damage in damages]
    by = "drawn from the prior" if result.method == "prior" else "forecast by the tokenizer, nothing drawn"
    console.result(
        {**values, "notes": notes, "output": target},
        [
            ("new frames", f"{result.predicted}, from {result.start_seconds:.3f} s on, {by}"),
            ("output", target),
        ],
    )
    for damage in damages:
        console.note(f"lost: byte {damage.offset}: {damage.reason}")
    if damages:
        raise IncompleteError("parts of the input could not be read; the rest was written", where=source)
