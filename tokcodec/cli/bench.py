"""`bench`: tokcodec beside other codecs on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokcodec.cli.app import app
from tokcodec.cli.options import Entropy, Json, LpipsPrecision, Prior, Quiet, Style, Verbose, console_of, precision_of
from tokcodec.errors import IncompleteError, UsageError

if TYPE_CHECKING:
    from tokcodec.bench.codecs import BenchCodec
    from tokcodec.bench.plan import Outcome, Plan
    from tokcodec.bench.record import BenchRecord
    from tokcodec.bench.tasks import MetricChoice
    from tokcodec.console import Console


@app.command(short_help="Compare with HEVC, AV1, VVC and AVC.")
def bench(
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="NAME|DIR", help="mcl-jcv, uvg, vid4, davis, smoke, or a folder.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Results; run again to go on where a run stopped.")
    ] = Path("bench-results"),
    codecs: Annotated[
        str, typer.Option("--codecs", metavar="LIST", help="tokcodec, x265, x265-veryslow, svtav1, vvenc, x264.")
    ] = "tokcodec,x265,svtav1,vvenc",
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="The dataset's files; else $TOKCODEC_DATASETS.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH|source", help="Size to measure at; the dataset's own if not given."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", metavar="N", min=1, help="Only the first N frames of each clip.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Model name or weights file.")] = None,
    entropy: Entropy = "auto",
    prior: Prior = None,
    style: Style = "auto",
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="Tasks at a time.")] = 1,
    threads: Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Threads of every codec.")] = 1,
    engine: Annotated[
        str, typer.Option("--engine", metavar="local|ray", help="Processes of this machine, or a Ray cluster.")
    ] = "local",
    points: Annotated[
        int,
        typer.Option("--points", metavar="N", min=2, max=20, help="Points of a curve whose quantizers are searched."),
    ] = 6,
    lpips_weights: Annotated[
        Path | None,
        typer.Option(
            "--lpips-weights", metavar="DIR", help="Backbones of LPIPS and DISTS; torch's cache is looked at too."
        ),
    ] = None,
    lpips_download: Annotated[
        bool, typer.Option("--lpips-download", help="Download the backbones (0.8 GB) if they are not there.")
    ] = False,
    lpips_every: Annotated[
        int, typer.Option("--lpips-every", metavar="N", min=1, help="LPIPS (AlexNet) on every Nth frame.")
    ] = 1,
    vgg_every: Annotated[
        int, typer.Option("--vgg-every", metavar="N", min=1, help="LPIPS (VGG16) and DISTS on every Nth frame.")
    ] = 1,
    lpips_precision: LpipsPrecision = "float32",
    dists: Annotated[
        bool, typer.Option("--dists/--no-dists", help="Measure DISTS, which takes about as long as LPIPS (VGG16).")
    ] = True,
    vmaf: Annotated[bool, typer.Option("--vmaf/--no-vmaf", help="Measure VMAF where an ffmpeg has libvmaf.")] = True,
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Where tokcodec's network runs.")] = "cpu",
    metrics_device: Annotated[
        str, typer.Option("--metrics-device", metavar="cpu|cuda", help="Where LPIPS, DISTS and MS-SSIM are computed.")
    ] = "cpu",
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the page, its example frames and the figures.")
    ] = True,
    json_results: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure rate, quality, speed and memory of tokcodec and other codecs on a dataset, and write a report."""
    console = console_of(quiet=quiet, verbose=verbose, json_results=json_results)
    say = console.debug if json_results else console.note
    names = [name.strip() for name in codecs.split(",")]
    precision = precision_of(lpips_precision)
    from tokcodec.bench.bdrate import check_bjontegaard
    from tokcodec.bench.codecs import make_codecs
    from tokcodec.bench.datasets import find_dataset, parse_size
    from tokcodec.bench.engine import check_engine, make_engine
    from tokcodec.bench.plan import Plan
    from tokcodec.bench.rates import RateSpan
    from tokcodec.bench.runner import records_of, run_plan
    from tokcodec.bench.store import open_store
    from tokcodec.bench.tasks import MetricChoice
    from tokcodec.bench.vmaf import MODEL, vmaf_missing

    check_bjontegaard()
    check_engine(engine)
    wanted_size = None if size is None else parse_size(size)
    wanted = make_codecs(names, model=model, device=device, entropy=entropy, prior=prior, style=style)
    found = find_dataset(dataset, root=root)
    choice = MetricChoice(
        lpips_folder=None if lpips_weights is None else lpips_weights.resolve(),
        alex_every=lpips_every,
        vgg_every=vgg_every,
        dists=dists,
        vmaf=vmaf,
        device=metrics_device,
        precision=precision,
    )
    present, absent = _present(wanted, console)
    with open_store(out.resolve()) as store:
        lpips = _backbones(choice, threads, download=lpips_download, console=console)
        store.set_absent(absent, names)
        plan = Plan(
            dataset=found,
            codecs=present,
            size=found.size if size is None else wanted_size,
            max_frames=frames,
            threads=threads,
            span=RateSpan(points=points),
            metrics=choice,
            lpips=lpips,
            vmaf=MODEL if vmaf and not vmaf_missing() else "",
            examples=report,
        )
        workers = make_engine(engine, jobs=jobs, threads=threads)
        try:
            outcome = run_plan(plan, store, workers, say)
        finally:
            workers.close()
        records = records_of(store, outcome)
        if others := len(store.records) - len(records):
            console.note(f"{others} measurements of other runs are in this folder; the report shows them too")
        page = None
        if report and records:
            from tokcodec.bench.report import write_report

            write_report(store.folder)
            page = store.folder / "report.html"
    _finish(console, plan, outcome, records, absent=absent, out=out, page=page)


def _present(codecs: list[BenchCodec], console: Console) -> tuple[list[BenchCodec], dict[str, str]]:
    """Codecs that are on this machine, and why the others are not."""
    absent = {codec.name: reason for codec in codecs if (reason := codec.absent())}
    for name, reason in absent.items():
        console.note(f"{name} is absent: {reason}")
    present = [codec for codec in codecs if codec.name not in absent]
    if not present:
        raise UsageError("none of the codecs is on this machine", hint="; ".join(absent.values()))
    return present, absent


def _backbones(choice: MetricChoice, threads: int, *, download: bool, console: Console) -> dict[str, str]:
    """Source of each network of LPIPS and of that of DISTS, "" where there is none; a download happens here, once."""
    from tokcodec.bench.tasks import meter_for
    from tokcodec.metrics.backbones import ALEX, VGG
    from tokcodec.metrics.lpips_network import load_lpips

    if download:
        for kind in (ALEX, VGG):
            loaded = load_lpips(kind, folder=choice.lpips_folder, download=True)
            if loaded.network is None:
                console.note(f"LPIPS ({kind.name}): {loaded.reason}")
    meter = meter_for(choice, threads)
    for name, reason in meter.missing.items():
        console.note(f"{name} is not measured: {reason}")
    meter_for.cache_clear()  # the networks are the workers' business
    return meter.sources


def _finish(
    console: Console,
    plan: Plan,
    outcome: Outcome,
    records: list[BenchRecord],
    *,
    absent: dict[str, str],
    out: Path,
    page: Path | None,
) -> None:
    """Say what there is; an error where something could not be measured."""
    from tokcodec.bench.summary import bd_table, bd_values

    values = {
        "dataset": plan.dataset.name,
        "clips": len(plan.dataset.clips),
        "measured": outcome.measured,
        "known": outcome.known,
        "absent": absent,
        "left_out": outcome.left_out,
        "short": outcome.short,
        "failed": outcome.failed,
        "failures": outcome.failures,
        "bd_rates": bd_values(records),
        "out": str(out),
        "report": None if page is None else str(page),
    }
    heads, rows, remarks = bd_table(records)
    if rows:
        console.table("BD-rate against x265 medium (PCHIP, per clip, then averaged; less is better)", heads, rows)
    counts = f"{len(records)} ({outcome.measured} new) on {len(plan.dataset.clips)} clips of {plan.dataset.name}"
    lines = [("measured", counts)]
    lines += [("no BD-rate", remark) for remark in remarks]
    lines += [("short curve", text) for text in outcome.short]
    lines += [("failed, another quantizer taken", text) for text in outcome.failed]
    lines += [("left out", text) for text in outcome.left_out]
    lines += [("absent", f"{name}: {reason}") for name, reason in absent.items()]
    lines.append(("results", str(out / "results.jsonl")))
    if page is not None:
        lines.append(("report", str(page)))
    console.result(values, lines)
    if outcome.failures:
        raise IncompleteError(
            f"{len(outcome.failures)} could not be measured: {outcome.failures[0]}",
            hint="run it again: only what is missing is measured",
        )
