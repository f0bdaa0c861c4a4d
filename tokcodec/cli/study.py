"""`study`: people choose between two codecs."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import Force, Json, Quiet, Verbose, console_of
from tokcodec.errors import UsageError

if TYPE_CHECKING:
    from tokcodec.study.make import Format
    from tokcodec.study.score import RateScore

study = typer.Typer(
    help="Ask people which of two codecs looks better, and turn their votes into Elo points.",
    short_help="Ask people which codec looks better.",
)
app.add_typer(study, name="study", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")]


@study.command(short_help="Put pairs of clips into a folder.")
def make(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The study's folder, made new.")],
    folder: Annotated[
        list[str] | None,
        typer.Option(
            "--folder", metavar="CODEC=DIR", help="Decoded clips of a codec, named alike; once for each codec."
        ),
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option("--bench", metavar="DIR", help="A results folder of `tokcodec bench`: its clips are coded again."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="NAME|DIR", help="With --bench: where its clips are.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="With --bench: the folder of a named dataset.")
    ] = None,
    codecs: Annotated[str, typer.Option("--codecs", help="With --bench: which codecs.")] = "tokcodec,x265",
    rates: Annotated[
        str, typer.Option("--rate", metavar="BPP,...", help="With --bench: bits per pixel at which they meet.")
    ] = "0.03",
    originals: Annotated[
        Path | None, typer.Option("--originals", metavar="DIR", help="Show raters these originals too.")
    ] = None,
    file_format: Annotated[
        str, typer.Option("--format", metavar="mp4|webm", help="What the browser plays: H.264 or VP9.")
    ] = "mp4",
    crf: Annotated[float, typer.Option("--crf", min=0, max=20, help="Rate factor of that copy.")] = 8.0,
    seed: Annotated[
        str | None, typer.Option("--seed", help="Of sides and orders; drawn where it is not given.")
    ] = None,
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put pairs of clips (two codecs, one rate) into a folder for `tokcodec study serve`."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    if (bench is None) == (not folder):
        raise UsageError("wants either --folder or --bench", hint="--folder x265=DIR --folder tokcodec=DIR")
    if bench is not None and dataset is None:
        raise UsageError("--bench wants --dataset too", hint="the one that the bench was run on")
    if file_format not in ("mp4", "webm"):
        raise UsageError(f"unknown format {file_format!r}", hint="mp4 or webm")
    from tokcodec.output import check_target

    check_target(out, force=force)
    from tokcodec.evaluation.clips import find_clips
    from tokcodec.study.make import MakeSettings, folder_sources, make_study

    settings = MakeSettings(seed=seed or secrets.token_hex(8), format=cast("Format", file_format), crf=crf)
    shown = {} if originals is None else {path.stem: path for path in find_clips(originals)}
    if bench is None:
        made = make_study(
            folder_sources(_folders(folder or [])), out, settings, originals=shown, force=force, say=console.debug
        )
    else:
        from tokcodec.study.rerun import Rerun, plan_rerun

        rerun = Rerun(dataset=dataset or "", root=root, codecs=tuple(codecs.split(",")), rates=_rates(rates))
        chosen = plan_rerun(bench, rerun)
        made = chosen.make(out, settings, originals=shown, force=force, say=console.note)
    values = {"study": str(out), "pairs": len(made.pairs), "clips": len(made.stimuli), "notes": list(made.notes)}
    console.result(
        values, [("study", str(out)), ("pairs", str(len(made.pairs))), ("next", f"tokcodec study serve {out}")]
    )


@study.command(short_help="Show the page on this machine.")
def serve(
    folder: Folder,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show the pairs in a browser on this machine, and store the votes; Ctrl-C ends it."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    from tokcodec.study.server import StudyServer

    with StudyServer(folder, port=port) as server:
        console.result({"url": server.url}, [("open", server.url), ("end", "Ctrl-C")])
        server.serve_forever()


@study.command(short_help="Elo points of the votes.")
def score(
    folder: Folder,
    resamples: Annotated[int, typer.Option("--bootstrap", min=10, help="Resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the resampling.")] = 0,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn the votes into Elo points, by Bradley-Terry maximum likelihood, with 95% bootstrap intervals."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    from tokcodec.study.plan import read_plan
    from tokcodec.study.score import score_votes
    from tokcodec.study.votes import VOTES_NAME, VoteStore

    plan = read_plan(folder)
    if not (folder / VOTES_NAME).exists():
        raise UsageError("there are no votes yet", where=str(folder), hint=f"tokcodec study serve {folder}")
    scores = score_votes(VoteStore(folder / VOTES_NAME).votes(), resamples=resamples, seed=seed)
    values = {
        "rates": [dataclasses.asdict(one) for one in scores],
        "method": _METHOD,
        "resamples": resamples,
        "notes": list(plan.notes),
    }
    console.result(values, [line for one in scores for line in _score_lines(one)] + [("method", _METHOD)])


_METHOD = (
    "Bradley-Terry maximum likelihood in Elo points, mean 1500, a tie is half a win for each, one tie added for each "
    "two codecs compared; 95% intervals by bootstrap over raters and their votes"
)


def _score_lines(one: RateScore) -> list[tuple[str, str]]:
    rate = f"{one.rate} bits per pixel: " if one.rate else ""
    raters = f"{one.raters} {'rater' if one.raters == 1 else 'raters'}"
    sides = "" if one.left_share is None else f", left side chosen in {one.left_share:.0%} of the votes for a side"
    lines = [("votes", f"{rate}{one.votes} of {raters}{sides}")]
    for codec in one.codecs:
        lines.append(
            (
                codec.codec,
                f"{codec.elo:6.0f} Elo, {codec.low:.0f} to {codec.high:.0f}; "
                f"{codec.wins} won, {codec.losses} lost, {codec.ties} equal",
            )
        )
    return lines


def _folders(pairs: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in pairs:
        name, equals, place = text.partition("=")
        if not name or not equals or not place or name in found:
            raise UsageError(f"{text!r} is not CODEC=DIR, or names a codec twice", hint="--folder x265=DIR")
        found[name] = Path(place)
    return found


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(sorted({float(rate) for rate in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"{text!r} is not a list of rates", hint="for example 0.02,0.04") from error
    if not all(0 < rate < 100 for rate in rates):
        raise UsageError("rates are bits per pixel above 0", hint="for example 0.02,0.04")
    return rates
