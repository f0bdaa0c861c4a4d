"""BD-rates, speed and memory, and every measurement, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokcodec.bench.bdrate import Method
from tokcodec.bench.curves import BdRow
from tokcodec.bench.record import BenchRecord, Speed
from tokcodec.bench.report.load import Results
from tokcodec.bench.report.series import ANCHOR, METRIC_LOOKS, Comparison, look_of, setting_text

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
SIDES = ("encode", "decode")
_STAGES = {"entropy_coding": "entropy coding", "video_io": "video I/O"}


def percent(value: float, *, digits: int = 1) -> str:
    """A BD-rate, with its sign: "+12.3%"."""
    text = f"{value:+.{digits if abs(value) < 1000 else 0}f}%"
    return text.replace("-", MINUS)


def number(metric: str, value: float | None) -> str:
    """A metric's value with its digits; a dash where there is none."""
    return NONE if value is None else f"{value:.{METRIC_LOOKS[metric].digits}f}"


def bd_value(row: BdRow, method: Method) -> float | None:
    """The mean of the clips' BD-rates; where a clip has none, that of the averaged curve, which may be None too."""
    mean = row.mean_per_clip[method]
    return row.from_mean_curve[method].percent if mean is None else mean


@dataclass(frozen=True, kw_only=True)
class BdCell:
    """BD-rate of one codec by one metric.

    Attributes:
        metric: Name.
        per_clip: Mean of the clips' BD-rates, or a dash.
        curve: BD-rate of the averaged curve, or a dash.
        sign: -1 for less rate than the anchor, 1 for more, 0 for neither.
        variant: Of the codec; "" where it has one way of coding.
        notes: Why a dash stands there.
    """

    metric: str
    per_clip: str
    curve: str
    sign: int
    variant: str
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class BdTableRow:
    """One codec's cells, by metric in the order of the table's head."""

    codec: str
    label: str
    cells: Sequence[BdCell]


def bd_table(comparison: Comparison, method: Method) -> list[BdTableRow]:
    """Every codec but the anchor, by every metric that was measured."""
    return [
        BdTableRow(
            codec=codec,
            label=look_of(codec).label,
            cells=[_bd_cell(comparison, codec, metric, method) for metric in comparison.series],
        )
        for codec in comparison.codecs
        if codec != ANCHOR
    ]


def _bd_cell(comparison: Comparison, codec: str, metric: str, method: Method) -> BdCell:
    row = comparison.bd.get(metric, {}).get(codec)
    if row is None:
        series = comparison.series[metric]
        who = ANCHOR if ANCHOR not in series else codec
        note = f"{look_of(who).label} was not measured by {METRIC_LOOKS[metric].label}"
        return BdCell(metric=metric, per_clip=NONE, curve=NONE, sign=0, variant="", notes=[note])
    mean, averaged = row.mean_per_clip[method], row.from_mean_curve[method]
    value = bd_value(row, method)
    notes = [f"mean of clips: {row.missing(method)}"] if mean is None else []
    if averaged.percent is None:
        notes.append(f"averaged curve: {averaged.reason}")
    return BdCell(
        metric=metric,
        per_clip=NONE if mean is None else percent(mean),
        curve=NONE if averaged.percent is None else percent(averaged.percent),
        sign=0 if value is None else (value > 0) - (value < 0),
        variant=row.variant.replace("=", " "),
        notes=[f"{look_of(codec).label}, {METRIC_LOOKS[metric].label}, {note}" for note in notes],
    )


@dataclass(frozen=True, kw_only=True)
class SpeedCell:
    """One direction of one codec.

    Attributes:
        rate: Frames a second.
        ratio: Of that to x265's over the same clips; a dash where x265 has none.
        memory: Peak, MB; a dash where the system did not say.
        memory_ratio: To x265's peak.
        stages: Shares of the time by stage; "" for codecs that do not tell.
    """

    rate: str
    ratio: str
    memory: str
    memory_ratio: str
    stages: str


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """A codec on a machine."""

    codec: str
    label: str
    threads: str
    encode: SpeedCell
    decode: SpeedCell


@dataclass(frozen=True, kw_only=True)
class SpeedTable:
    """All codecs on one machine.

    Attributes:
        machine: Its description, as text.
        rows: One for each codec.
    """

    machine: str
    rows: Sequence[SpeedRow]


def speed_tables(results: Results, comparison: Comparison) -> list[SpeedTable]:
    """A table for each machine; ratios never cross machines."""
    tables = []
    for machine in machines_of(results):
        sides = [
            [run for record in results.records if (run := _run(record, side)).machine == machine] for side in SIDES
        ]
        rows = []
        for codec in comparison.codecs:
            threads = sorted({run.speed.threads for runs in sides for run in runs if run.codec == codec})
            if threads:
                encode, decode = (_speed_cell(runs, codec) for runs in sides)
                told = " / ".join(map(str, threads))
                rows.append(
                    SpeedRow(codec=codec, label=look_of(codec).label, threads=told, encode=encode, decode=decode)
                )
        tables.append(SpeedTable(machine=machine_text(results, machine), rows=rows))
    return tables


def machines_of(results: Results) -> list[str]:
    """Keys of all machines that encoded or decoded."""
    return sorted({_run(record, side).machine for record in results.records for side in SIDES})


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One encode or decode."""

    codec: str
    clip: str
    frames: int
    machine: str
    speed: Speed


def _run(record: BenchRecord, side: str) -> _Run:
    is_encode = side == "encode"
    return _Run(
        codec=record.codec,
        clip=record.clip,
        frames=record.frames,
        machine=(record.encode_machine or record.machine) if is_encode else record.machine,
        speed=record.encode if is_encode else record.decode,
    )


def _speed_cell(runs: Sequence[_Run], codec: str) -> SpeedCell:
    """A codec's cell, of all encodes or all decodes of one machine."""
    own = [run for run in runs if run.codec == codec]
    if not own:
        return SpeedCell(rate=NONE, ratio=NONE, memory=NONE, memory_ratio=NONE, stages="")
    clips = {run.clip for run in own}
    base = [run for run in runs if run.codec == ANCHOR and run.clip in clips]
    base_clips = {run.clip for run in base}
    shared = [run for run in own if run.clip in base_clips]
    peak, base_peak = _peak(own), _peak(base)
    ratio = _frame_rate(shared) / _frame_rate(base) if shared and base else None
    stages: dict[str, float] = {}
    for run in own:
        for name, seconds in (run.speed.stages or {}).items():
            stages[name] = stages.get(name, 0.0) + seconds
    total = sum(stages.values())
    return SpeedCell(
        rate=_figures(_frame_rate(own)),
        ratio=NONE if ratio is None else _times(ratio),
        memory=NONE if peak is None else f"{peak / 1e6:.0f}",
        memory_ratio=NONE if peak is None or base_peak is None else _times(peak / base_peak),
        stages=", ".join(f"{_STAGES.get(name, name)} {seconds / total:.0%}" for name, seconds in stages.items())
        if total > 0
        else "",
    )


def _frame_rate(some: Sequence[_Run]) -> float:
    return sum(run.frames for run in some) / max(1e-9, sum(run.speed.seconds for run in some))


def _peak(some: Sequence[_Run]) -> int | None:
    return max((peak for run in some if (peak := run.speed.peak_memory_bytes) is not None), default=None)


def _figures(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.3f}"


def _times(value: float) -> str:
    return f"{value:.2f}\N{MULTIPLICATION SIGN}" if value < 10 else f"{value:.0f}\N{MULTIPLICATION SIGN}"


def machine_text(results: Results, machine: str) -> str:
    """What a machine is, in one line."""
    described = results.machines.get(machine)
    if described is None:
        return f"machine {machine}, not described"
    values = dict(described)
    parts = [str(values.pop("cpu", "unknown processor"))]
    if "cores" in values:
        parts.append(f"{values.pop('cores')} cores")
    memory = values.pop("memory_bytes", 0)
    if isinstance(memory, int) and memory > 0:
        parts.append(f"{memory / 2**30:.1f} GiB of memory")
    return ", ".join([*parts, *(f"{name} {value}" for name, value in values.items())])


@dataclass(frozen=True, kw_only=True)
class ClipTable:
    """Every measurement of one clip.

    Attributes:
        clip: Name.
        title: What the clip is.
        rows: Codec, setting, rate, bytes, then each metric that was measured, then frames a second both ways; all text.
        bd: Codec, then BD-rate (PCHIP) by each metric.
    """

    clip: str
    title: str
    rows: Sequence[Sequence[str]]
    bd: Sequence[Sequence[str]]


def clip_tables(results: Results, comparison: Comparison) -> list[ClipTable]:
    """A table for each clip, all codecs and variants, by rising rate."""
    order = {codec: number for number, codec in enumerate(comparison.codecs)}
    tables = []
    for clip in results.clips:
        records = [record for record in results.records if record.clip == clip]
        records.sort(key=lambda record: (order[record.codec], record.bits_per_pixel))
        first = records[0]
        tables.append(
            ClipTable(
                clip=clip,
                title=f"{first.width}x{first.height}, {first.frames} frames, {first.frame_rate:g} frames/s",
                rows=[_clip_row(record, list(comparison.series)) for record in records],
                bd=[_clip_bd(comparison, codec, clip) for codec in comparison.codecs if codec != ANCHOR],
            )
        )
    return tables


def _clip_row(record: BenchRecord, metrics: Sequence[str]) -> list[str]:
    return [
        look_of(record.codec).label,
        setting_text(record),
        f"{record.bits_per_pixel:.5f}",
        f"{record.coded_bytes}",
        *(number(metric, record.metrics[metric]) for metric in metrics),
        _figures(record.encode.frames_per_second),
        _figures(record.decode.frames_per_second),
    ]


def _clip_bd(comparison: Comparison, codec: str, clip: str) -> list[str]:
    cells = [look_of(codec).label]
    for metric in comparison.series:
        row = comparison.bd.get(metric, {}).get(codec)
        found = None if row is None else row.per_clip.get(clip)
        value = None if found is None else found["pchip"].percent
        cells.append(NONE if value is None else percent(value))
    return cells
