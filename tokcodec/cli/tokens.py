"""`trim` and `tokens`: `.tok` files without pixels."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import (
    Device,
    Entropy,
    Force,
    Json,
    Prior,
    Quiet,
    Style,
    Verbose,
    Weights,
    checked_output,
    console_of,
    prior_file,
)
from tokcodec.errors import IncompleteError, UsageError


@app.command(short_help="A smaller .tok file from a larger one.")
def trim(
    source: Annotated[str, typer.Argument(metavar="IN.tok", help="The .tok file; - is standard input.")],
    target: Annotated[str, typer.Argument(metavar="OUT.tok", help="The smaller one; - is standard output.")],
    quality: Annotated[
        int | None, typer.Option("--quality", "-Q", min=1, max=15, help="No token keeps more than this level.")
    ] = None,
    bits_per_pixel: Annotated[
        float | None, typer.Option("--bpp", metavar="X", help="Or: at most so many bits per pixel.")
    ] = None,
    prior: Prior = None,
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Leave bits of tokens out, without decoding pixels.

    The encoder saw all the bits, a decoder of the trimmed file does not: its picture drifts until the next chunk.
    Encoding again at the lower quality gives a better picture, where the video is at hand.
    """
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results, data_on_stdout=target == "-")
    if (quality is None) == (bits_per_pixel is None):
        raise UsageError("--quality and --bpp exclude each other, and one is needed")
    sink = checked_output(target, source=source, force=force)
    import sys

    from tokcodec.inspection import damage_dict
    from tokcodec.output import atomic
    from tokcodec.sources import open_tok
    from tokcodec.trim import trim as trim_stream

    with contextlib.ExitStack() as stack:
        stream = sys.stdin.buffer if source == "-" else stack.enter_context(open_tok(Path(source)))
        if isinstance(sink, str):
            part = stack.enter_context(atomic(Path(sink), force=force, source=source))
            sink = stack.enter_context(part.open("wb"))
        result = trim_stream(stream, sink, quality=quality, bits_per_pixel=bits_per_pixel, prior=prior_file(prior))
    values = dataclasses.asdict(result)
    values["damages"] = [damage_dict(damage) for damage in result.damages]
    for note in result.notes:
        console.note(note)
    sizes = (
        f"{result.bytes_before} bytes before, {result.bytes_after} after, {result.bits_per_pixel:.4f} bits per pixel"
    )
    console.result(values, [("frames", f"{result.frames} in {result.chunks} chunks"), ("size", sizes)])
    for damage in result.damages:
        console.note(f"lost: byte {damage.offset}: {damage.reason}")
    if result.damages:
        raise IncompleteError("parts of the input could not be read; the rest was written", where=source)


@app.command(short_help="Tokens as arrays for training, and back.")
def tokens(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A .tok file; or .npz or .safetensors that this command made.")
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="A .npz or .safetensors; or, from these, a .tok file or a video."),
    ],
    subtokens: Annotated[
        int | None,
        typer.Option("--subtokens", min=1, max=64, help="Sub-tokens of each index; by default of nine bits each."),
    ] = None,
    entropy: Entropy = "auto",
    prior: Prior = None,
    weights: Weights = None,
    style: Style = "auto",
    device: Device = "auto",
    force: Force = False,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the tokens of a .tok file as arrays, or make a .tok file or a video of such arrays.

    The arrays: indices (T', H', W'), subtokens (T', H', W', parts), levels of the blocks, vectors of motion,
    chunk_frames, pts, durations, the header, and chunk_steps and step_frames where steps are listed; docs/tokens.md
    explains them.
    """
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    checked_output(str(target), source=str(source), force=force)
    from tokcodec.output import atomic
    from tokcodec.sources import open_tok
    from tokcodec.tokenfiles import SUFFIXES, read_arrays, tok_bytes, token_arrays, tokenizer_of, write_arrays

    if target.suffix in SUFFIXES:
        with open_tok(source) as stream:
            arrays = token_arrays(stream, parts=subtokens, prior=prior_file(prior))
        with atomic(target, force=force, source=str(source)) as part:
            write_arrays(part, arrays, suffix=target.suffix)
    else:
        if source.suffix not in SUFFIXES:
            raise UsageError(
                f"{source.name} to {target.name}: one of them must be a file of tokens",
                hint=f"those end in {' or '.join(SUFFIXES)}",
            )
        from tokcodec.chunks import ADAPTIVE, choose_entropy

        arrays = read_arrays(source)
        is_tok = target.suffix == ".tok"
        # On the way to a video nobody keeps the coded tokens: the fastest model will do.
        chosen = choose_entropy(entropy, prior, tokenizer=tokenizer_of(arrays)) if is_tok else ADAPTIVE
        data = tok_bytes(arrays, entropy=chosen)
        if is_tok:
            with atomic(target, force=force, source=str(source)) as part:
                part.write_bytes(data.getvalue())
        else:
            from tokcodec.codec import Codec

            Codec(weights=weights, device=device, prior=prior, style=style).decode(data, target, force=force)
    shape = tuple(int(size) for size in arrays["indices"].shape)
    values = {"steps": shape[0], "rows": shape[1], "columns": shape[2], "chunks": len(arrays["chunk_frames"])}
    line = f"{shape[0]} steps of {shape[1]} x {shape[2]}, in {values['chunks']} chunks"
    console.result({**values, "output": str(target)}, [("tokens", line), ("output", str(target))])
