"""Measuring a run: its clock, what it computes a second against the device's peak, and its log lines."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from tokcodec.training.losses import psnr_of_mse

PEAK_BF16_FLOPS = (
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("A10", 125e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("RTX 4090", 165e12),
)
"""Dense bf16 peak of the data sheets, by a part of the device's name; the first that fits counts."""
STEP_SECONDS = 30.0
"""A step that takes longer than this counts only as long as the process was computing."""


def device_name(device: torch.device) -> str:
    """What the maker calls a GPU; else the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_flops(name: str) -> float | None:
    """Peak of a device by its name; None of one that is not in the table."""
    return next((peak for part, peak in PEAK_BF16_FLOPS if part in name), None)


class ComputeClock:
    """Seconds of computing: a process that is stopped and taken up again does not age.

    Wall time counts; but of a lap longer than `STEP_SECONDS`, no more than the processor time it took.
    """

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def lap(self) -> float:
        """Seconds since the last lap."""
        wall, cpu = time.monotonic(), time.process_time()
        passed = min(wall - self._wall, max(STEP_SECONDS, cpu - self._cpu))
        self._wall, self._cpu = wall, cpu
        return passed


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of the log.

    Attributes:
        minutes: Of the run, all calls together.
        step: Updates so far.
        phase: Number of the phase.
        clips_per_second: On all devices together.
        flops_per_second: Three times the multiply-adds of the model's convolutions forward, two FLOPs each; neither
            LPIPS nor the optimizer is in it.
        peak_share: Of the peak of all devices; None where that is not known.
        learning_rate: Of this step.
        skipped: Updates skipped since the last line, because a gradient was not finite.
        psnr: Of the mean squared error of these batches.
        terms: Mean of every loss term since the last line.
    """

    minutes: float
    step: int
    phase: int
    clips_per_second: float
    flops_per_second: float
    peak_share: float | None
    learning_rate: float
    skipped: int
    psnr: float
    terms: dict[str, float]

    def line(self) -> str:
        """JSON with rounded numbers."""
        fields = dataclasses.asdict(self)
        fields.update(fields.pop("terms"))
        fields["flops_per_second"] = float(f"{self.flops_per_second:.4g}")
        return json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in fields.items()})


class Meter:
    """Adds up steps until a line is due; terms stay on the device until then."""

    def __init__(self, *, devices: int, peak: float | None) -> None:
        self._devices, self._peak = devices, peak
        self._clear()

    def _clear(self) -> None:
        self.seconds = 0.0
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._clips = self._skipped = 0
        self._flops = 0.0

    def add(self, terms: dict[str, Tensor], *, clips: int, flops: float, seconds: float, skipped: bool) -> None:
        """One step; `flops` of all its clips, `seconds` that it took."""
        self.seconds += seconds
        self._clips += clips
        self._flops += flops
        self._skipped += skipped
        if not skipped:
            for name, value in terms.items():
                total, count = self._sums.get(name, (torch.zeros_like(value), 0))
                self._sums[name] = (total + value, count + 1)

    @property
    def empty(self) -> bool:
        """Whether no step was added since the last line."""
        return self._clips == 0

    def progress(self, *, minutes: float, step: int, phase: int, learning_rate: float) -> Progress:
        """The line that is due; then start anew."""
        terms = {name: float(total) / count for name, (total, count) in self._sums.items()}
        seconds = max(self.seconds, 1e-9)
        rate = self._flops * self._devices / seconds
        line = Progress(
            minutes=minutes,
            step=step,
            phase=phase,
            clips_per_second=self._clips * self._devices / seconds,
            flops_per_second=rate,
            peak_share=None if self._peak is None else rate / (self._peak * self._devices),
            learning_rate=learning_rate,
            skipped=self._skipped,
            psnr=psnr_of_mse(terms["mse"]) if "mse" in terms else 0.0,
            terms=terms,
        )
        self._clear()
        return line
