"""The rate-quality picture, by matplotlib."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

from tokcodec.errors import UsageError
from tokcodec.evaluation.report import Report

_PANELS = {
    "psnr_rgb": "PSNR of RGB, dB (more is better)",
    "ms_ssim_rgb": "MS-SSIM of RGB (more is better)",
    "lpips_alex": "LPIPS, AlexNet (less is better)",
    "lpips_vgg": "LPIPS, VGG16 (less is better)",
    "dists": "DISTS (less is better)",
}


def check_matplotlib() -> None:
    """Refuse at once, and not after hours.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a picture needs matplotlib", hint="pip install 'tokcodec[metrics]'")


def draw(report: Report, target: Path) -> None:
    """Write a PNG: a panel for each metric that was measured, quality over bits per pixel.

    Args:
        report: What to draw.
        target: The file; its name need not end in .png.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    curves = [("tokcodec", report.levels, "o-"), ("x265 medium", report.anchor, "s--")]
    panels = [name for name in _PANELS if any(point.quality[name] is not None for point in report.levels)]
    columns = min(2, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns) or 1
    figure = Figure(figsize=(5.5 * columns, 3.8 * rows), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for panel, name in zip(axes.flat, panels, strict=False):
        for label, curve, style in curves:
            points = [(p.bits_per_pixel, value) for p in curve if (value := p.quality[name]) is not None]
            if points:
                panel.plot(*zip(*points, strict=True), style, label=label, markersize=4)
        panel.set_xscale("log")
        panel.set_xlabel("bits per pixel")
        panel.set_title(_PANELS[name], fontsize=10)
        panel.grid(visible=True, which="both", alpha=0.25)
        panel.legend()
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    figure.savefig(target, format="png", dpi=120)
