"""`train-prior`, for those who make models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import Device, Json, Quiet, Verbose, console_of


@app.command(name="train-prior", short_help="Train a probability model on one's own tokens.")
def train_prior(
    tokens: Annotated[Path, typer.Option("--tokens", metavar="DIR", help="Folder of .tok files of one tokenizer.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Checkpoint, log and weights.")],
    max_minutes: Annotated[float, typer.Option("--max-minutes", min=0.001, help="Train for so long.")],
    total_minutes: Annotated[
        float | None, typer.Option("--total-minutes", help="Length of the whole run, over all calls.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            metavar="FILE",
            help="Start from weights of a prior, or a checkpoint: of one, or of tokcodec train with a rate term.",
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the exported prior.")] = "prior",
    context: Annotated[int, typer.Option("--context", min=1, max=1024, help="Channels of the first layer.")] = 96,
    state: Annotated[int, typer.Option("--state", min=1, max=1024, help="Channels from step to step.")] = 64,
    head: Annotated[int, typer.Option("--head", min=1, max=1024, help="Channels of the head.")] = 128,
    window: Annotated[int, typer.Option("--window", metavar="3|5", help="Tokens along the window of known bits.")] = 3,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Crops an update.")] = 6,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Latent steps of a crop.")] = 9,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=0.0, help="Peak.")] = 2e-3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    device: Device = "auto",
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train the probability model `prior` on .tok files; call again to go on where the last call stopped.

    Use what it writes with tokcodec encode --entropy prior --prior FILE.
    """
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    from tokcodec.probability.prior_config import PriorConfig
    from tokcodec.training.prior_data import bits_of_folder
    from tokcodec.training.prior_loop import PriorTrainConfig
    from tokcodec.training.prior_run import train_prior_folder

    entry = train_prior_folder(
        tokens,
        out,
        max_minutes=max_minutes,
        total_minutes=max_minutes if total_minutes is None else total_minutes,
        name=name,
        config=PriorConfig(
            bits_per_token=bits_of_folder(tokens),
            context_channels=context,
            state_channels=state,
            head_channels=head,
            window=window,
        ),
        train=PriorTrainConfig(batch=batch, steps=steps, learning_rate=learning_rate, seed=seed),
        init=init,
        device=device,
        log=console.note,
    )
    console.result({"prior": str(entry.path), "sha256": entry.sha256}, [("prior", str(entry.path))])
