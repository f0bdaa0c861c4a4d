"""`bench/sizes.py`: what is measured, and the table of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bench_helpers import bench_script
from PIL import Image

from tokcodec.errors import UsageError

SIZES = bench_script("sizes")
SMALL, LARGE = ("fast", "faithful"), ("fast", "vivid")


def line(clip: str, size: tuple[str, str], quality: int, rate: float, psnr: float, **changes: Any) -> dict[str, Any]:
    found = {
        "clip": clip,
        "model": size[0],
        "style": size[1],
        "quality": quality,
        "frames": 10,
        "bits_per_pixel": rate,
        "decode_seconds": 0.5,
        "psnr_rgb": psnr,
        "lpips_alex": 0.3,
        "lpips_vgg": 0.4,
    }
    return found | changes


def curves(clip: str, size: tuple[str, str], start: float, **changes: Any) -> list[dict[str, Any]]:
    return [line(clip, size, q, 0.01 * 2**q, start + q, **changes) for q in (0, 1, 2)]


def test_sizes_are_compared_at_equal_rates_on_clips_that_reach_them_in_all() -> None:
    lines = [
        *curves("a", LARGE, 21.0, decode_seconds=1.0),
        *curves("a", SMALL, 20.0),
        *curves("b", SMALL, 30.0),
        line("b", LARGE, 0, 0.01, 31.0),
        line("b", LARGE, 1, 0.015, 31.5),
    ]
    small, large = SIZES.rows_of(lines, [0.01, 0.02, 0.2])
    assert (tuple(small.size), tuple(large.size)) == (SMALL, LARGE), "by FLOPs"
    assert large.flops_per_pixel - small.flops_per_pixel == pytest.approx(19200)
    assert small.milliseconds == pytest.approx(50)
    assert small.values[0.01, "psnr_rgb"] == pytest.approx(25.0)
    assert large.values[0.01, "psnr_rgb"] == pytest.approx(26.0)
    assert small.values[0.02, "psnr_rgb"] == pytest.approx(21.0), "b does not reach it through the filter"
    assert large.values[0.02, "psnr_rgb"] == pytest.approx(22.0)
    assert small.values[0.2, "psnr_rgb"] is None
    table = SIZES.markdown([small, large], [0.01, 0.2])
    assert "| fast, faithful | 0.0 | 50 | 25.00, 0.300, 0.400 | not reached, not reached, not reached |" in table


def test_what_is_no_line_is_refused(tmp_path: Path) -> None:
    assert SIZES.read_lines(tmp_path / "none") == []
    (tmp_path / "torn.jsonl").write_text('{"clip": "a"}\n{"cl')
    with pytest.raises(UsageError, match="not JSON"):
        SIZES.read_lines(tmp_path / "torn.jsonl")


def test_what_is_there_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measure(first: Any, second: Any, *, matrix: int) -> SimpleNamespace:
        asked.append(np.abs(first.astype(int) - second).mean())
        return SimpleNamespace(psnr_rgb=30.0, lpips_alex=0.2, lpips_vgg=0.3)

    monkeypatch.setattr(SIZES, "make_meter", lambda **_: SimpleNamespace(missing={}, measure=measure))
    video = tmp_path / "clip.y4m"
    frames = np.linspace(40, 200, 48 * 64).reshape(48, 64)
    raw = b"YUV4MPEG2 W64 H48 F24:1 Ip A1:1 C444\n"
    for shift in range(3):
        plane = np.roll(frames, shift, axis=1).astype(np.uint8).tobytes()
        raw += b"FRAME\n" + plane + bytes([128]) * (2 * 48 * 64)
    video.write_bytes(raw)
    out, plot = tmp_path / "sizes.jsonl", tmp_path / "sizes.png"
    command = ["sizes.py", str(video), "--out", str(out), "--models", "fast", "--styles", "faithful,light"]
    monkeypatch.setattr(sys, "argv", [*command, "--qualities", "2"])
    assert SIZES.main() == 0
    assert len(asked) == 2
    assert max(asked) < 20
    monkeypatch.setattr(
        sys, "argv", [*command, "--qualities", "1,2", "--table", "--rates", "1e-9", "--plot", str(plot)]
    )
    assert SIZES.main() == 0
    assert len(asked) == 4
    lines = [json.loads(each) for each in out.read_text().splitlines()]
    assert [(each["style"], each["quality"]) for each in lines] == [
        ("faithful", 2),
        ("light", 2),
        ("faithful", 1),
        ("light", 1),
    ]
    assert all(each["frames"] == 3 and each["decode_seconds"] > 0 for each in lines)
    rates = {(each["style"], each["quality"]): each["bits_per_pixel"] for each in lines}
    assert rates["faithful", 2] == rates["light", 2], "one file for all styles"
    printed = capsys.readouterr().out
    assert printed.index("fast, faithful") < printed.index("fast, light")
    with Image.open(plot) as picture:
        assert picture.size[0] > 1000
