"""`info` and `verify`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import (
    Json,
    Prior,
    Quiet,
    Verbose,
    console_of,
    prior_file,
)
from tokcodec.console import Console
from tokcodec.errors import IncompleteError, UsageError

if TYPE_CHECKING:
    from tokcodec.inspection import Inspection


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
    if found.step_counts:
        shown = ", ".join(f"{count} of {frames}" for frames, count in found.step_counts.items())
        lines.append(("steps", f"{found.chunks} first ones, then by frames that they show: {shown}"))
    if found.tokens:
        bits, raw = found.token_bits, found.raw_token_bits
        each = f"{found.tokens} in {found.token_bytes} bytes"
        if bits is not None:
            each += f", {bits / found.tokens:.3f} bits each"
            if raw:
                each += f" of {raw / found.tokens:.3f} before coding ({bits / raw:.1%})"
        others = (
            (found.motion_bits, "motion"),
            (found.picture_bits, "first pictures"),
            (found.residual_bits, "residuals"),
        )
        among = [what if count is None else f"{count // 8} bytes of {what}" for count, what in others if count != 0]
        if among:
            each += f", and {' and '.join(among)} among them"
        lines.append(("tokens", each))
    if header.probability_model:
        lines.append(("prior", f"SHA-256 {header.probability_digest.hex()[:12]}..."))
    lines.append(("model", f"{header.tokenizer_name} (SHA-256 {header.tokenizer_digest.hex()[:12]}...)"))
    lines.extend(
        ("stream", f"{side.codec}{f' ({side.language})' if side.language else ''}, unchanged")
        for side in header.side_streams
    )
    return lines


@app.command(short_help="What a .tok file holds; what a model costs.")
def info(
    source: Annotated[
        str | None, typer.Argument(metavar="FILE.tok", help="The .tok file; - is standard input.")
    ] = None,
    model: Annotated[
        bool, typer.Option("--model", help="Describe the default model (or FILE.safetensors) instead.")
    ] = False,
    prior: Prior = None,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what a .tok file holds, or what a model costs.

    With --json the tokens are decoded, to count their bits before coding, of each chunk; that takes as long as verify.
    """
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    if model:
        _describe_model(console, source)
        return
    if source is None:
        raise UsageError("no file was named", hint="tokcodec info FILE.tok, or tokcodec info --model")
    found = _survey(source, check_tokens=json_results, prior=prior_file(prior), needs_weights=False)
    console.result(found.to_dict(), _inspection_lines(found))
    _report_damage(console, found, source)


def _survey(source: str, *, check_tokens: bool, prior: Path | None = None, needs_weights: bool = True) -> Inspection:
    from tokcodec.inspection import survey
    from tokcodec.sources import open_tok

    if source == "-":
        return survey(sys.stdin.buffer, check_tokens=check_tokens, prior=prior, needs_weights=needs_weights)
    with open_tok(Path(source)) as stream:
        return survey(stream, check_tokens=check_tokens, prior=prior, needs_weights=needs_weights)


def _report_damage(console: Console, found: Inspection, source: str) -> None:
    for damage in found.damages:
        console.note(f"lost: byte {damage.offset}: {damage.reason}")
    if not found.complete:
        raise IncompleteError("the file is not whole", where=source, hint="get it again, or decode what is left of it")


def _describe_model(console: Console, name: str | None) -> None:
    from tokcodec.tokenizer.cost import measure_cost, post_filter_flops_per_pixel
    from tokcodec.weights import default_entry, find_by_name, load_post_filter, load_tokenizer
    from tokcodec.weights.post_filters import post_filter_entries

    entry = default_entry() if name is None else find_by_name(name)
    loaded = load_tokenizer(entry)
    cost = measure_cost(loaded)
    filters, filter_lines = [], []
    for each in post_filter_entries():
        if entry.sha256 in each.tokenizers:
            network = load_post_filter(each)
            flops = post_filter_flops_per_pixel(network.config)
            parameters = sum(p.numel() for p in network.parameters())
            filters.append(
                {"name": each.name, "sha256": each.sha256, "flops_per_pixel": flops, "parameters": parameters}
            )
            line = f"{each.name}: {flops / 1e3:.1f} kFLOPs/pixel, {parameters:,} parameters"
            filter_lines.append(("post-filter", line))
    values = {
        "name": entry.name,
        "sha256": entry.sha256,
        "config": dataclasses.asdict(loaded.config),
        **dataclasses.asdict(cost),
        "post_filters": filters,
    }
    lines = [
        ("model", f"{entry.name} (SHA-256 {entry.sha256})"),
        (
            "encoder",
            f"{cost.encoder_flops_per_pixel / 1e3:.1f} kFLOPs/pixel, {cost.encoder_parameters:,} parameters",
        ),
        (
            "decoder",
            f"{cost.decoder_flops_per_pixel / 1e3:.1f} kFLOPs/pixel, {cost.decoder_parameters:,} parameters",
        ),
        *filter_lines,
        ("tokens", f"{loaded.config.bits_per_token} bits for each 8x8 pixels of a step"),
    ]
    console.result(values, lines)


@app.command(short_help="Check every chunk, without pixels.")
def verify(
    source: Annotated[str, typer.Argument(metavar="FILE.tok", help="The .tok file; - is standard input.")],
    prior: Prior = None,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check every chunk of a .tok file, tokens included, without decoding pixels."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    found = _survey(source, check_tokens=True, prior=prior_file(prior))
    state = "every chunk is whole" if found.complete else "damaged"
    console.result(found.to_dict(), [*_inspection_lines(found), ("state", state)])
    _report_damage(console, found, source)
