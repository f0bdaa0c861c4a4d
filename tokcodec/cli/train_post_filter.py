"""`train-post-filter`, for those who make models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import Device, Json, Quiet, Verbose, console_of
from tokcodec.errors import UsageError


@app.command(name="train-post-filter", short_help="Train what makes decoded pictures sharper.")
def train_post_filter(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Coded clips, checkpoint, log and weights.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Videos, or tar files of them; none where DIR/coded has them coded."
        ),
    ] = None,
    max_minutes: Annotated[float, typer.Option("--max-minutes", min=0.001, help="Train for so long.")] = 30.0,
    total_minutes: Annotated[
        float | None,
        typer.Option(
            "--total-minutes",
            min=0.001,
            help="Length of the whole run, over all calls: what --max-minutes says, if not given.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Whose pictures: a model name or weights file.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="Leave out what matches, as dev/*.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            metavar="FILE",
            help="Checkpoint of such a filter, or weights, also of fewer --blocks.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="vivid|FILE",
            help="Learn what this filter makes of the pictures (distillation), beside or instead of the originals.",
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the exported filter.")] = "vivid",
    channels: Annotated[int, typer.Option("--channels", min=1, max=1024, help="At 1/4 of the resolution.")] = 32,
    inner_channels: Annotated[
        int, typer.Option("--inner-channels", min=1, max=1024, help="At 1/8 of the resolution.")
    ] = 96,
    blocks: Annotated[int, typer.Option("--blocks", min=1, max=64, help="Residual blocks at 1/8.")] = 2,
    by_scale: Annotated[
        bool, typer.Option("--by-scale", help="Tell it the quantizer of the chunk's first picture.")
    ] = False,
    l1: Annotated[float, typer.Option("--l1", min=0.0, help="Weight of the mean absolute error.")] = 1.0,
    mse: Annotated[float, typer.Option("--mse", min=0.0, help="Weight of the mean squared error.")] = 2.0,
    lpips: Annotated[float, typer.Option("--lpips", min=0.0, help="Weight of LPIPS; 0 needs no backbones.")] = 1.0,
    alex: Annotated[float, typer.Option("--alex", min=0.0, help="Weight of AlexNet in LPIPS.")] = 0.3,
    vgg: Annotated[float, typer.Option("--vgg", min=0.0, help="Weight of VGG16 in LPIPS.")] = 0.9,
    by_quality: Annotated[
        str, typer.Option("--lpips-by-quality", metavar="F,F,F,F,F,F", help="Factors of LPIPS at quality 1 to 6.")
    ] = "1,1,1,1,1,1",
    teacher_l1: Annotated[
        float,
        typer.Option("--teacher-l1", min=0.0, help="Weight of the mean absolute error to its pictures."),
    ] = 1.0,
    teacher_mse: Annotated[
        float, typer.Option("--teacher-mse", min=0.0, help="Weight of the mean squared error to the same.")
    ] = 2.0,
    adversarial: Annotated[
        float, typer.Option("--adversarial", min=0.0, help="Weight of a discriminator that learns alongside.")
    ] = 0.0,
    lpips_weights: Annotated[
        Path | None, typer.Option("--lpips-weights", metavar="DIR", help="Backbones of LPIPS.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Crops an update.")] = 12,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=0.0, help="Peak.")] = 1.5e-3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 0,
    device: Device = "auto",
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a post-filter on videos as the codec gives them back; call again to go on where the last call stopped.

    Use what it writes with tokcodec decode --style FILE.
    """
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    from tokcodec.tokenizer.post_filter import PostFilterConfig
    from tokcodec.training.losses import LossWeights
    from tokcodec.training.post_filter_loop import PostFilterTrainConfig
    from tokcodec.training.post_filter_run import train_post_filter_folder

    entry = train_post_filter_folder(
        data,
        out,
        max_minutes=max_minutes,
        total_minutes=max_minutes if total_minutes is None else total_minutes,
        name=name,
        config=PostFilterConfig(channels=channels, inner_channels=inner_channels, blocks=blocks, by_scale=by_scale),
        train=PostFilterTrainConfig(
            batch=batch,
            learning_rate=learning_rate,
            seed=seed,
            weights=LossWeights(l1=l1, mse=mse, lpips=lpips, adversarial=adversarial),
            alex=alex,
            vgg=vgg,
            by_quality=_factors(by_quality),
            teacher_l1=teacher_l1,
            teacher_mse=teacher_mse,
        ),
        model=model,
        exclude=exclude or [],
        init=init,
        teacher=teacher,
        lpips_weights=lpips_weights,
        device=device,
        log=console.note,
    )
    console.result({"post_filter": str(entry.path), "sha256": entry.sha256}, [("post-filter", str(entry.path))])


def _factors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(factor) for factor in text.split(","))
    except ValueError as error:
        raise UsageError(f"--lpips-by-quality takes numbers with commas between them, not {text!r}") from error
