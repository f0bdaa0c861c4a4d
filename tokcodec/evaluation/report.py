"""What `tokcodec eval` says: lines for people, values for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tokcodec.evaluation.curves import CurvePoint, at_rate, average, monotone_breaks
from tokcodec.evaluation.measure import X265_PARAMS, X265_PRESET
from tokcodec.evaluation.record import METRICS, TOKCODEC, X265, Key, Record
from tokcodec.frames.hevc import PIXEL_FORMAT

_HEADS = {
    "psnr_rgb": ("PSNR RGB", ".2f"),
    "psnr_y": ("PSNR Y", ".2f"),
    "ms_ssim_rgb": ("MS-SSIM RGB", ".4f"),
    "ms_ssim_y": ("MS-SSIM Y", ".4f"),
    "lpips_alex": ("LPIPS Alex", ".4f"),
    "lpips_vgg": ("LPIPS VGG", ".4f"),
    "dists": ("DISTS", ".4f"),
}
_LABEL = "x265 medium"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The curves of both codecs, and what is to be said about them.

    Attributes:
        levels: tokcodec's curve, by rising rate.
        anchor: x265's, likewise; empty where it was left out.
        missing: Why there is no LPIPS or DISTS, by metric.
        lpips_every: LPIPS and DISTS on every so many frames.
        lpips_precision: Of its convolutions.
        max_frames: Only the first so many frames of each clip; None is all.
        records: What the curves are the means of.
    """

    levels: Sequence[CurvePoint]
    anchor: Sequence[CurvePoint]
    missing: dict[str, str]
    lpips_every: int
    max_frames: int | None
    records: Sequence[Record]
    lpips_precision: str = "float32"

    def anchor_at(self, level: CurvePoint) -> tuple[dict[str, float | None] | None, str]:
        """x265's quality at the rate of a level; or None and the reason."""
        if not self.anchor:
            return None, "left out"
        if any(point.clips != level.clips for point in self.anchor):
            return None, "not every clip is large enough for x265"
        found = at_rate(self.anchor, level.bits_per_pixel)
        if found is not None:
            return found, ""
        if level.bits_per_pixel < self.anchor[0].bits_per_pixel:
            return None, f"its lowest rate is {self.anchor[0].bits_per_pixel:.5f}"
        return None, f"its highest rate measured is {self.anchor[-1].bits_per_pixel:.5f}"

    def lines(self) -> list[tuple[str, str]]:
        """A table, and what it means."""
        lines = [("", _columns("bpp", {name: head for name, (head, _) in _HEADS.items()}))]
        for level in self.levels:
            lines.append((f"{self._by()} {level.setting:g}", _row(level.bits_per_pixel, level.quality)))
            if self.anchor:
                values, reason = self.anchor_at(level)
                lines.append((_LABEL, reason if values is None else _row(level.bits_per_pixel, values)))
        breaks = monotone_breaks(self.levels)
        lines.append(
            ("monotone", "; ".join(breaks) if breaks else "yes, every level is larger and better than the last")
        )
        lines.append(("measured", self._measured()))
        if encoder := self._encoder():
            lines.append(("encoder", encoder))
        if self.anchor:
            lines.append((_LABEL, self._conditions()))
        lines += [(_HEADS[name][0], f"not measured: {reason}") for name, reason in self.missing.items()]
        return lines

    def _measured(self) -> str:
        clips, frames = (self.levels[0].clips, self.levels[0].frames) if self.levels else (0, 0)
        which = "all" if self.max_frames is None else f"the first {self.max_frames} of each clip"
        every = "every frame" if self.lpips_every == 1 else f"one frame in {self.lpips_every}"
        precision = "" if self.lpips_precision == "float32" else f" in {self.lpips_precision}"
        sampled = f"LPIPS and DISTS on {every}{precision}"
        return f"{clips} clips, {frames} frames ({which}), 8-bit RGB, means over clips; {sampled}"

    def _ours(self) -> Key | None:
        """What all measurements of tokcodec in a run have in common, and a setting."""
        return next((record.key for record in self.records if record.key.codec == TOKCODEC), None)

    def _by(self) -> str:
        ours = self._ours()
        return "quality" if ours is None else ours.by

    def _encoder(self) -> str:
        ours = self._ours()
        if ours is None:
            return ""
        prior = f" {ours.prior_sha256[:12]}" if ours.prior_sha256 else ""
        trimmed = f", encoded at quality {ours.trimmed_from} and trimmed" if ours.trimmed_from else ""
        shown = f", post-filter {ours.post_filter_sha256[:12]}" if ours.post_filter_sha256 else ""
        return f"effort {ours.effort}, entropy {ours.entropy}{prior}{trimmed}{shown}"

    def _conditions(self) -> str:
        crfs = " ".join(f"{point.setting:g}" for point in reversed(self.anchor))
        params = ":".join(f"{key}={value}" for key, value in X265_PARAMS.items())
        return (
            f"preset {X265_PRESET}, {PIXEL_FORMAT}, {params}, crf {crfs}; "
            "its curve, averaged over clips, linear in log(bpp) at the rate of the level above"
        )

    def values(self) -> dict[str, Any]:
        """The same, and every record."""
        levels = []
        for level in self.levels:
            values, reason = self.anchor_at(level)
            levels.append({**dataclasses.asdict(level), "anchor": values, "anchor_missing": reason})
        breaks = monotone_breaks(self.levels)
        return {
            "levels": levels,
            "anchor": [dataclasses.asdict(point) for point in self.anchor],
            "anchor_conditions": self._conditions() if self.anchor else "",
            "monotone": not breaks,
            "monotone_breaks": breaks,
            "encoder": self._encoder(),
            "lpips_every": self.lpips_every,
            "lpips_precision": self.lpips_precision,
            "max_frames": self.max_frames,
            "missing": self.missing,
            "records": [dataclasses.asdict(record) for record in self.records],
        }


def make_report(
    records: Sequence[Record],
    *,
    missing: dict[str, str],
    lpips_every: int,
    max_frames: int | None,
    lpips_precision: str = "float32",
) -> Report:
    """Average the records of a run."""
    return Report(
        levels=average(records, TOKCODEC),
        anchor=average(records, X265),
        missing=missing,
        lpips_every=lpips_every,
        max_frames=max_frames,
        records=records,
        lpips_precision=lpips_precision,
    )


def _row(bits_per_pixel: float, quality: dict[str, float | None]) -> str:
    texts = {name: "" if (value := quality[name]) is None else f"{value:{_HEADS[name][1]}}" for name in METRICS}
    return _columns(f"{bits_per_pixel:.5f}", texts)


def _columns(rate: str, texts: dict[str, str]) -> str:
    return "  ".join([f"{rate:>7}", *(f"{texts[name]:>{len(_HEADS[name][0])}}" for name in METRICS)])
