"""What is known of one clip, coded by one codec at one rate: a line of JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from tokcodec.errors import MediaError

TOKCODEC = "tokcodec"
X265 = "x265-medium"
METRICS = ("psnr_rgb", "psnr_y", "ms_ssim_rgb", "ms_ssim_y", "lpips_alex", "lpips_vgg", "dists")
ADDED_METRICS = ("dists",)
"""What lines of earlier versions do not have: there it was not measured."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """What makes a measurement the same one.

    Attributes:
        clip_sha256: Digest of the clip's file.
        max_frames: Only the first so many frames; None is all.
        codec: "tokcodec" or "x265-medium".
        setting: Quality level, bits per pixel that were asked for, or constant rate factor.
        effort: Of tokcodec's encoder; 0 for another codec.
        model_sha256: Digest of the tokenizer's weights; "" for another codec.
        device: Where the tokenizer ran; "" for another codec.
        lpips_every: LPIPS on every so many frames.
        by: What the setting of tokcodec is: "quality" or "bpp".
        entropy: Its probability model.
        prior_sha256: Digest of that one's weights; "" where it has none.
        post_filter_sha256: Digest of the post-filter that pictures are shown through; "" where there is none.
        trimmed_from: Quality that was coded, and then trimmed to the setting; 0 where nothing was trimmed.
        lpips_precision: "float32" or "bfloat16", of the convolutions of LPIPS.
    """

    clip_sha256: str
    max_frames: int | None
    codec: str
    setting: float
    effort: int
    model_sha256: str
    device: str
    lpips_every: int
    by: str = "quality"
    entropy: str = "adaptive"
    prior_sha256: str = ""
    post_filter_sha256: str = ""
    trimmed_from: int = 0
    lpips_precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measurement.

    Attributes:
        key: What was measured.
        clip: File name.
        width: Of the pictures, pixels.
        height: Of the pictures, pixels.
        frames: Frames measured.
        coded_bytes: Size of the `.tok` file, or of the elementary stream.
        bits_per_pixel: Of those bytes.
        quality: Metric by name, see `METRICS`; None where it could not be measured. PSNR may be infinite.
        lpips_sources: Backbone file and digest by metric of LPIPS and DISTS; "" where there was none.
        seconds: Wall clock of encoding, decoding and measuring.
        versions: Of what took part.
    """

    key: Key
    clip: str
    width: int
    height: int
    frames: int
    coded_bytes: int
    bits_per_pixel: float
    quality: dict[str, float | None]
    lpips_sources: dict[str, str]
    seconds: float
    versions: dict[str, str]

    def to_json(self) -> str:
        """One line. JSON knows no infinity: it becomes the word "inf"."""
        values = dataclasses.asdict(self)
        values["quality"] = {name: "inf" if v == math.inf else v for name, v in self.quality.items()}
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The inverse of :meth:`to_json`.

        Raises:
            MediaError: The line is none.
        """
        try:
            values: dict[str, Any] = json.loads(line)
            values["key"] = Key(**values["key"])
            values["quality"] = {name: None if v is None else float(v) for name, v in values["quality"].items()}
            values["quality"] = dict.fromkeys(ADDED_METRICS) | values["quality"]
            if set(values["quality"]) != set(METRICS):
                raise ValueError("other metrics")
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MediaError(f"not a line of tokcodec eval: {error}") from error
