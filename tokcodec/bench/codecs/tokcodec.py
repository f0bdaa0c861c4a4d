"""tokcodec itself, through its command line: a real file, decoded afresh in another process."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokcodec.bench.codecs.base import INTRA_PERIOD, CodecTask, Quantizer
from tokcodec.bench.record import Setting
from tokcodec.weights import AUTO_STYLE

LEVELS = (1, 2, 3, 4, 5, 6)
CHUNK_FRAMES = INTRA_PERIOD + 1


@dataclass(frozen=True, kw_only=True)
class Tokcodec:
    """Every quality level of one model.

    Attributes:
        model: Name of a model, or a weights file; None is the default one.
        model_name: What the model is called in records.
        sha256: Digest of its weights.
        device: Where the network runs.
        levels: Quality levels to measure.
        entropy: Probability model.
        prior: Name or file of its weights; None is the one that is installed.
        prior_sha256: Digest of those weights; "" where there are none.
        style: How pictures are shown.
        post_filter_sha256: Digest of the post-filter that they are shown through; "" where there is none.
    """

    model: str | None = None
    model_name: str = ""
    sha256: str = ""
    device: str = "cpu"
    levels: tuple[int, ...] = LEVELS
    entropy: str = "adaptive"
    prior: str | None = None
    prior_sha256: str = ""
    style: str = AUTO_STYLE
    post_filter_sha256: str = ""
    name: str = "tokcodec"
    suffix: str = ".tok"
    quantizer: Quantizer | None = None

    def settings(self) -> Sequence[Setting]:
        """A setting for each level; the weights are a part of it, so that other weights are measured again."""
        fixed: Setting = {"chunk_frames": CHUNK_FRAMES, "weights": self.sha256[:12]}
        if self.device != "cpu":
            fixed["device"] = self.device
        fixed["entropy"] = self.entropy
        if self.prior_sha256:
            fixed["prior"] = self.prior_sha256[:12]
        if self.post_filter_sha256:
            fixed["post_filter"] = self.post_filter_sha256[:12]
        return [{"quality": level, **fixed} for level in self.levels]

    def absent(self) -> str:
        """It is here."""
        return ""

    def refuses(self, width: int, height: int) -> str:
        """It takes all."""
        return ""

    def encode_command(self, task: CodecTask) -> list[str]:
        """`tokcodec encode`."""
        model = [] if self.model is None else ["--model", self.model]
        return [
            *[sys.executable, "-m", "tokcodec", "encode", str(task.source), str(task.target), *model],
            *["--quality", str(task.setting["quality"]), "--chunk-frames", str(CHUNK_FRAMES)],
            *["--no-audio", "--device", self.device, "--jobs", "1", "--force", "--json"],
            *self._entropy_options(),
        ]

    def _entropy_options(self) -> list[str]:
        return ["--entropy", self.entropy, *([] if self.prior is None else ["--prior", self.prior])]

    def decode_command(self, task: CodecTask) -> list[str]:
        """`tokcodec decode`."""
        weights = ["--weights", self.model] if self.model is not None and Path(self.model).is_file() else []
        prior = [] if self.prior is None else ["--prior", self.prior]
        return [
            *[sys.executable, "-m", "tokcodec", "decode", str(task.source), str(task.target), *weights, *prior],
            *["--style", self.style, "--codec", "ffv1", "--no-audio", "--device", self.device],
            *["--jobs", "1", "--force", "--json"],
        ]

    def stages(self, values: Mapping[str, Any]) -> dict[str, float] | None:
        """Network, entropy coder, and the rest, which is reading and writing pictures."""
        tokenizer, coding = float(values["tokenizer_seconds"]), float(values["entropy_coding_seconds"])
        rest = max(0.0, float(values["seconds"]) - tokenizer - coding)
        return {"tokenizer": tokenizer, "entropy_coding": coding, "video_io": rest}

    def told(self, setting: Setting, *, threads: int) -> str:
        """The two commands."""
        model = f" --model {self.model_name}" if self.model is not None else ""
        encode = f"tokcodec encode IN OUT.tok{model} --quality {setting['quality']} --chunk-frames {CHUNK_FRAMES}"
        encode += "".join(f" {word}" for word in self._entropy_options())
        return (
            f"OMP_NUM_THREADS={threads} {encode} --device {self.device} --jobs 1; "
            f"tokcodec decode OUT.tok OUT.mkv --style {self.style} --codec ffv1 --jobs 1"
        )

    def versions(self) -> dict[str, str]:
        """The package, torch, and the weights."""
        import importlib.metadata

        import torch

        return {
            "tokcodec": importlib.metadata.version("tokcodec"),
            "torch": torch.__version__,
            "weights": f"{self.model_name} {self.sha256}",
        }


def make_tokcodec(
    *,
    model: str | None = None,
    device: str = "cpu",
    entropy: str = "auto",
    prior: str | None = None,
    style: str = AUTO_STYLE,
) -> Tokcodec:
    """tokcodec with a model of the registry, or a weights file; `entropy` and `prior` as for `tokcodec encode`, `style`
    as for `tokcodec decode`.

    Raises:
        UsageError: There is no such probability model.
        ModelError: There is no such model, or no such post-filter.
    """
    from tokcodec.chunks import choose_entropy
    from tokcodec.weights import choose_post_filter, default_entry, find_by_name

    entry = default_entry() if model is None else find_by_name(model)
    chosen = choose_entropy(entropy, prior, tokenizer=entry.sha256)
    shown = choose_post_filter(style, tokenizer=entry.sha256)
    return Tokcodec(
        model=model,
        model_name=entry.name,
        sha256=entry.sha256,
        device=device,
        entropy=chosen.model,
        prior=prior,
        prior_sha256=chosen.sha256,
        style=style,
        post_filter_sha256="" if shown is None else shown.sha256,
    )
