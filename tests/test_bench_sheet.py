"""`bench/sheet.py` without encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_helpers import bench_script
from PIL import Image

from tokcodec.bench.codecs import CodecTask, Tokcodec
from tokcodec.errors import MediaError

SHEET = bench_script("sheet")


def test_a_sheet_has_a_row_for_each_clip():
    def shown(colour: tuple[int, int, int], width: int, height: int) -> Any:
        return SHEET.Shown(pixels=np.full((height, width, 3), colour, np.uint8), label="a label")

    red, blue = (200, 30, 30), (30, 30, 200)
    sheet = SHEET.draw_sheet([[shown(red, 80, 40), shown(blue, 80, 40)], [shown(blue, 60, 30)]], 60)
    assert sheet.size == (2 * 60 + SHEET.GAP, 2 * SHEET.STRIP + 30 + 30 + SHEET.GAP)
    assert sheet.getpixel((30, SHEET.STRIP + 15)) == red
    assert sheet.getpixel((60 + SHEET.GAP + 30, SHEET.STRIP + 15)) == blue
    assert sheet.getpixel((30, 2 * SHEET.STRIP + SHEET.GAP + 45)) == blue
    strip = np.asarray(sheet.crop((0, 0, 60, SHEET.STRIP)))
    assert strip.min() < 100, "the label is there"


def test_labels_and_rates_of_a_sheet():
    assert SHEET.label_of("original", "camel", rate=None, lpips=None) == "camel, original"
    assert SHEET.label_of("vvenc", "camel", rate=0.02034, lpips=0.4121) == "VVenC, 0.0203 bpp, LPIPS 0.412"
    task = CodecTask(
        source=Path("a.avi"),
        target=Path("a.tok"),
        setting={"bpp": 0.02},
        threads=1,
        matrix=1,
        width=64,
        height=64,
        frame_rate="24/1",
    )
    command = SHEET.TokcodecAtRate().encode_command(task)
    assert command[command.index("--bpp") + 1] == "0.02"
    assert "--quality" not in command
    own = Tokcodec().encode_command(CodecTask(**{**vars(task), "setting": {"quality": 3}}))
    assert len(own) == len(command)


def test_a_row_of_example_frames(tmp_path: Path):
    frames = tmp_path / "frames"
    (frames / "camel").mkdir(parents=True)
    entries = []
    for number, (codec, rate) in enumerate([("original", None), ("tokcodec", 0.02), ("x265", 0.021)]):
        Image.new("RGB", (8, 6), (40 * number, 0, 0)).save(frames / "camel" / f"{codec}.png")
        entries.append({"clip": "camel", "codec": codec, "bits_per_pixel": rate, "file": f"camel/{codec}.png"})
    (frames / "index.json").write_text(json.dumps(entries))
    row = SHEET.row_of_results(tmp_path, "camel", ["x265", "vvenc", "tokcodec"], None)
    assert [shown.label for shown in row] == ["camel, original", "x265, 0.0210 bpp", "tokcodec, 0.0200 bpp"]
    assert [int(shown.pixels[0, 0, 0]) for shown in row] == [0, 80, 40]
    with pytest.raises(MediaError, match="no example frames of dog"):
        SHEET.row_of_results(tmp_path, "dog", [], None)
    with pytest.raises(MediaError, match="no example frames"):
        SHEET.row_of_results(tmp_path / "frames", "camel", [], None)
