"""A study from a results folder of the bench: its clips are coded and decoded again, all codecs at one rate."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokcodec.bench.clips import ClipFacts, write_clip
from tokcodec.bench.codecs import BenchCodec, CodecTask, make_codecs
from tokcodec.bench.datasets import ClipSource, find_dataset
from tokcodec.bench.process import run_measured
from tokcodec.bench.record import BenchRecord, Setting
from tokcodec.bench.report.load import load_results
from tokcodec.bench.tracks import MOST_FAILURES
from tokcodec.errors import MediaError, UsageError
from tokcodec.study.make import MakeSettings, Source, study_maker
from tokcodec.study.plan import Study
from tokcodec.weights import AUTO_STYLE, FAITHFUL

FARTHEST = 1.5
"""A codec with a few fixed rates takes part where one of them is within this factor of the rate asked for."""
ALIKE = 1.1
"""Rates of a pair that differ by more than this factor are noted."""


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """What to take from a results folder.

    Attributes:
        dataset: That the bench was run on.
        root: Of its files; None as for the bench.
        codecs: Which.
        rates: Bits per pixel at which codecs meet.
    """

    dataset: str
    root: Path | None
    codecs: tuple[str, ...]
    rates: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """One clip at one rate.

    Attributes:
        rate: Asked for, as text.
        clip: Name.
        target: Bits per pixel that searched codecs aim at: that of the codec with fixed rates, or the one asked for.
        records: Where each codec starts.
    """

    rate: str
    clip: str
    target: float
    records: Sequence[BenchRecord]


@dataclass(frozen=True, kw_only=True)
class RerunPlan:
    """What will be coded again.

    Attributes:
        meetings: All of them.
        sources: Of the clips.
        codecs: By name.
        left_out: Clips without a comparison, and why.
    """

    meetings: Sequence[Meeting]
    sources: Mapping[str, ClipSource]
    codecs: Mapping[str, BenchCodec]
    left_out: Sequence[str]

    def make(
        self,
        out: Path,
        settings: MakeSettings,
        *,
        originals: Mapping[str, Path] | None = None,
        force: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> Study:
        """Code, decode and collect.

        Raises:
            MediaError: A codec fails.
            UsageError: Clips of a pair differ.
            OutputError: `out` exists, or cannot be written.
        """
        with study_maker(out, settings, force=force) as maker:
            notes = list(self.left_out)
            for meeting in self.meetings:
                rates = []
                with tempfile.TemporaryDirectory() as place:
                    first = meeting.records[0]
                    lossless = Path(place) / "clip.avi"
                    size = (first.width, first.height)
                    source = self.sources[meeting.clip]
                    facts = write_clip(source, lossless, size=size, max_frames=first.frames)
                    for record in meeting.records:
                        decoded, rate = recode(self.codecs[record.codec], record, lossless, facts, meeting.target)
                        say(f"{meeting.clip}, {record.codec}: {rate:.4f} bits per pixel")
                        rates.append(rate)
                        maker.add(
                            Source(
                                codec=record.codec,
                                rate=meeting.rate,
                                clip=meeting.clip,
                                path=decoded,
                                bits_per_pixel=rate,
                            )
                        )
                if max(rates) > ALIKE * min(rates):
                    notes.append(f"{meeting.clip}: rates from {min(rates):.4f} to {max(rates):.4f} bits per pixel")
            maker.notes += notes
            for clip, path in (originals or {}).items():
                maker.add_original(clip, path)
        if maker.study is None:
            raise UsageError("the study was not finished")
        return maker.study


def recode(
    codec: BenchCodec, record: BenchRecord, lossless: Path, facts: ClipFacts, target: float
) -> tuple[Path, float]:
    """Encode and decode a clip as a record says, with the quantizer whose rate is nearest to the target.

    Args:
        codec: Which.
        record: Setting and threads; the search starts at its quantizer.
        lossless: The clip.
        facts: Of the clip.
        target: Bits per pixel.

    Returns:
        The decoded clip, beside `lossless`, and its rate.

    Raises:
        MediaError: The codec fails.
    """
    threads = record.encode.threads

    def task(setting: Setting, source: Path, output: Path) -> CodecTask:
        return CodecTask(
            source=source,
            target=output,
            setting=setting,
            threads=threads,
            matrix=facts.matrix,
            width=facts.width,
            height=facts.height,
            frame_rate=facts.frame_rate,
        )

    def encode(setting: Setting, coded: Path) -> float:
        command = codec.encode_command(task(setting, lossless, coded))
        run_measured(command, threads=threads, name=f"{codec.name}, encoding")
        return 8 * coded.stat().st_size / (facts.width * facts.height * facts.frames)

    quantizer = codec.quantizer
    tried: dict[int, float] = {}
    failed: set[int] = set()
    step = 1
    value = 0 if quantizer is None else round(float(record.setting[quantizer.name]))
    files = lossless.with_name(f"{codec.name}-{{}}{codec.suffix}")
    setting = record.setting
    while value not in tried and value not in failed:
        if quantizer is not None:
            setting = {**record.setting, quantizer.name: value}
        try:
            tried[value] = encode(setting, Path(str(files).format(value)))
        except MediaError:
            if quantizer is None or len(failed) == MOST_FAILURES:
                raise
            failed.add(value)
        if quantizer is not None:
            # A larger quantizer gives a lower rate: towards the target, until it lies between two neighbours.
            step = step if value in failed else 1 if tried[value] > target else -1
            value += step
            while value in failed:
                value += step
            value = min(quantizer.highest, max(quantizer.lowest, value))
    if not tried:
        raise MediaError(f"{codec.name} encodes {lossless.name} at no quantizer that was tried")
    best = min(tried, key=lambda number: abs(math.log(tried[number] / target)))
    setting = record.setting if quantizer is None else {**record.setting, quantizer.name: best}
    decoded = lossless.with_name(f"{codec.name}.mkv")
    command = codec.decode_command(task(setting, Path(str(files).format(best)), decoded))
    run_measured(command, threads=threads, name=f"{codec.name}, decoding")
    return decoded, tried[best]


def plan_rerun(folder: Path, rerun: Rerun) -> RerunPlan:
    """Choose where each codec starts, for every clip and rate.

    Raises:
        UsageError: A codec was not measured or is not here, or no clip has two codecs at one rate.
        MediaError: The results or the dataset cannot be read, or are not of one another.
    """
    records = load_results(folder).records
    filtered = any(record.setting.get("post_filter") for record in records)
    made = make_codecs(rerun.codecs, style=AUTO_STYLE if filtered else FAITHFUL)
    codecs = {codec.name: codec for codec in made}
    for name, codec in codecs.items():
        if reason := codec.absent():
            raise UsageError(f"{name} is not on this machine: {reason}")
        own = [record for record in records if record.codec == name]
        if not own:
            raise UsageError(f"{name} was not measured", where=str(folder), hint="choose other --codecs")
        _check_weights(codec, own)
    sources = {source.name: source for source in find_dataset(rerun.dataset, root=rerun.root).clips}
    meetings: list[Meeting] = []
    left_out = []
    for clip in sorted({record.clip for record in records}):
        some = [record for record in records if record.clip == clip]
        _check_source(sources, some[0])
        for rate in rerun.rates:
            found = {name: _nearest([record for record in some if record.codec == name], rate) for name in codecs}
            there = {name: record for name, record in found.items() if record is not None}
            fixed = [record.bits_per_pixel for name, record in there.items() if codecs[name].quantizer is None]
            if len(there) < 2 or any(max(own / rate, rate / own) > FARTHEST for own in fixed):
                left_out.append(f"{clip} left out: no two codecs near {rate:g} bits per pixel")
                continue
            target = fixed[0] if fixed else rate
            meetings.append(Meeting(rate=f"{rate:g}", clip=clip, target=target, records=list(there.values())))
    if not meetings:
        raise UsageError("no clip has two codecs at one rate", hint="choose another --rate")
    return RerunPlan(meetings=meetings, sources=sources, codecs=codecs, left_out=left_out)


def _check_source(sources: Mapping[str, ClipSource], record: BenchRecord) -> None:
    source = sources.get(record.clip)
    if source is None or source.digest() != record.clip_sha256:
        raise MediaError(
            f"{record.clip} is not the clip that was measured" if source else f"the dataset has no clip {record.clip}",
            hint="name the dataset that the bench was run on",
        )


def _check_weights(codec: BenchCodec, records: Sequence[BenchRecord]) -> None:
    names = ("weights", "post_filter")
    known = [[setting.get(name) for name in names] for setting in codec.settings()]
    found = [[record.setting.get(name) for name in names] for record in records if "weights" in record.setting]
    if any(weights not in known for weights in found):
        raise UsageError(f"{codec.name} was measured with other weights than these", hint="run the bench again first")


def _nearest(records: Sequence[BenchRecord], rate: float) -> BenchRecord | None:
    """The record nearest in rate; of VVenC's two ways of coding the perceptual one, which is made for eyes."""
    perceptual = [record for record in records if record.setting.get("qpa", 1) == 1] or list(records)
    return min(perceptual, key=lambda record: abs(math.log(record.bits_per_pixel / rate)), default=None)
