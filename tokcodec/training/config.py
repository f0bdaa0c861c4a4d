"""The frozen configuration of a run, and its JSON form."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from tokcodec.errors import TokcodecError, UsageError
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.training.discriminator import SMALLEST_SIDE
from tokcodec.training.losses import LossWeights
from tokcodec.training.pack_plan import PackConfig
from tokcodec.training.source import AugmentConfig

Stage = Literal["continuous", "full", "nested"]
Source = Literal["auto", "packed", "store"]
Precision = Literal["bf16", "float32"]

_Config = TypeVar("_Config")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of a run.

    Attributes:
        share: Share of the run's minutes.
        frames: Frames a clip, 1 + 4t; 1 trains on images.
        side: Pixels along each side of a crop, a multiple of 8.
        batch: Clips a step of the optimizer, on each device.
        stage: "continuous" latents (bits all the same of a hybrid), "full" rate bits (in later steps
            those of `usual_level`), or "nested" prefixes and maps.
        lpips: Whether the LPIPS term takes part (where its weight is not 0).
        adversarial: Whether the discriminator takes part, and learns (where the weight of its term is not 0).
    """

    share: float
    frames: int
    side: int
    batch: int
    stage: Stage
    lpips: bool = True
    adversarial: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"share of a phase must be above 0 and at most 1, not {self.share}")
        if self.frames < 1 or self.frames % 4 != 1:
            raise UsageError(f"frames of a phase must be 1, 5, 9, 13, ..., not {self.frames}")
        if self.side < 8 or self.side % 8:
            raise UsageError(f"side of a phase must be a multiple of 8, not {self.side}")
        if self.batch < 1:
            raise UsageError(f"batch of a phase must be at least 1, not {self.batch}")


def check_phases(phases: Sequence[Phase], *, clip_frames: int, side: int) -> None:
    """Refuse phases that packed clips of `clip_frames` frames of `side` x `side` are too small for.

    Raises:
        UsageError: With the `"pack"` that would do.
    """
    for number, phase in enumerate(phases, start=1):
        if phase.frames > clip_frames or phase.side > side:
            wanted = {
                "clip_frames": max(clip_frames, *(p.frames for p in phases)),
                "side": max(side, *(p.side for p in phases)),
            }
            raise UsageError(
                f"phase {number} takes {phase.frames} frames of {phase.side}x{phase.side}, "
                f"but packed clips have {clip_frames} of {side}x{side}",
                hint=f'pack larger clips: "pack": {json.dumps(wanted)} in the file of --config',
            )


CPU_PHASES = (
    Phase(share=0.03, frames=1, side=96, batch=16, stage="continuous"),
    Phase(share=0.12, frames=1, side=96, batch=16, stage="full"),
    Phase(share=0.35, frames=17, side=96, batch=4, stage="full"),
    Phase(share=0.50, frames=17, side=128, batch=4, stage="nested"),
)


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """The discriminator, where `LossWeights.adversarial` is not 0; R1 and LeCAM weigh as in the paper.

    Attributes:
        width: Channels of the discriminator at half the resolution, an even number; parameters grow with its square.
        learning_rate: Of the discriminator; it warms up and falls as that of the run.
        start: Updates of the discriminator before the decoder hears of it; a fresh one knows nothing.
        adaptive_every: Steps from one measurement of the adaptive weight to the next, each up to two backward passes
            through the decoder's end; 0 leaves the weight at 1.
        adaptive_limit: Largest adaptive weight.
        r1: Weight of the gradient penalty on real clips; 0 leaves it out.
        r1_every: Steps from one evaluation of it to the next, each with that many times the weight.
        lecam: Weight of LeCAM; 0 leaves it out.
        lecam_decay: Of the moving averages of logits that LeCAM pulls to.
    """

    width: int = 24
    learning_rate: float = 1e-4
    start: int = 200
    adaptive_every: int = 4
    adaptive_limit: float = 1e4
    r1: float = 10.0
    r1_every: int = 16
    lecam: float = 0.001
    lecam_decay: float = 0.999

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise UsageError(f"width must be an even number, not {self.width}")
        if self.start < 0 or self.adaptive_every < 0 or self.r1_every < 1:
            raise UsageError("start and adaptive_every must be at least 0, r1_every at least 1")
        if min(self.r1, self.lecam) < 0 or min(self.learning_rate, self.adaptive_limit) <= 0:
            raise UsageError("r1 and lecam must be at least 0, learning_rate and adaptive_limit above 0")
        if not 0 <= self.lecam_decay < 1:
            raise UsageError(f"lecam_decay must be at least 0 and below 1, not {self.lecam_decay}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All choices of a run; written into its log.

    Attributes:
        phases: In order; the shares add up to one.
        learning_rate: Peak; after a warm-up it falls to zero as a cosine over the run.
        full_rate_share: Share of nested batches that keep every bit (of a hybrid, that is worth its price).
        usual_level: Highest level that later steps usually keep, and the one that they keep at full rate; a first
            step, of which the later ones are made, keeps anything.
        entropy_group: Axes of each sub-group of the entropy penalty.
        lpips_frames: Frames of each batch, drawn at random, on which the LPIPS term is evaluated.
        inflate: Whether the layers of later steps start from those of the first as the first video phase begins; else
            they start at random.
        ema: Decay of the moving average of the weights, which is what gets exported.
        source: "store" holds all frames on the device, "packed" reads crops from disk; "auto" is "store" on CUDA.
        compile: Compile the steps of encoder and decoder (worth its minute on CUDA only).
        precision: What convolutions compute in; the weights are float32.
        max_skipped_steps: Updates in a row that may be skipped because a gradient is not finite.
        decoder_only: Leave the encoder as it is, as that of a hybrid always is. Its tokens of a chunk's
            first step stay the same; later ones change a little, for it is shown the forecast of the decoder that is
            trained.
    """

    phases: tuple[Phase, ...] = CPU_PHASES
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    full_rate_share: float = 0.5
    usual_level: int = 6
    entropy_group: int = 6
    lpips_frames: int = 16
    inflate: bool = True
    ema: float = 0.998
    seed: int = 0
    source: Source = "auto"
    compile: bool = False
    precision: Precision = "bf16"
    max_skipped_steps: int = 20
    weights: LossWeights = field(default_factory=LossWeights)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    decoder_only: bool = False

    def __post_init__(self) -> None:
        if not math.isclose(sum(p.share for p in self.phases), 1.0, abs_tol=1e-6):
            raise UsageError("the shares of the phases must add up to 1")
        if self.warmup_steps < 1 or self.lpips_frames < 1:
            raise UsageError("warmup_steps and lpips_frames must be at least 1")
        if self.usual_level < 1:
            raise UsageError("usual_level must be at least 1")
        if not 1 <= self.entropy_group <= 16:
            raise UsageError("entropy_group must be from 1 to 16: a group has a table of 2^n entries")
        if self.weights.adversarial and any(p.adversarial and p.side < SMALLEST_SIDE for p in self.phases):
            raise UsageError(
                f"an adversarial phase needs a side of at least {SMALLEST_SIDE}",
                hint='larger crops, or "adversarial": false in that phase',
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a file given to `tokcodec train --config` can say."""

    train: TrainConfig = field(default_factory=TrainConfig)
    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    pack: PackConfig = field(default_factory=PackConfig)

    def __post_init__(self) -> None:
        if self.model.wavelet and any(phase.frames == 1 for phase in self.train.phases):
            raise UsageError(
                "a phase of one frame has nothing to train: first pictures are coded without a network",
                hint='phases of 5 frames and more, or "wavelet": false in the model',
            )

    def to_json(self) -> str:
        """One line of JSON with every key."""
        return json.dumps(dataclasses.asdict(self))


def read_run_config(path: Path, presets: Mapping[str, RunConfig], default: RunConfig) -> RunConfig:
    """Read a JSON file; keys that it leaves out are those of its `"preset"`, or of `default`.

    A model whose `bits_per_token` is given without `level_bits` has seven even levels: a table is of one width only.

    Raises:
        UsageError: Not JSON, an unknown key, a value of the wrong type or out of range; the message says which key.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except ValueError as error:
        raise UsageError(f"not JSON: {error}", where=str(path)) from error
    try:
        if isinstance(values, dict) and "preset" in values:
            name = values.pop("preset")
            if not isinstance(name, str) or name not in presets:
                raise UsageError(f"preset: {name!r} is none of {', '.join(presets)}")
            default = presets[name]
        return _build(RunConfig, _with_levels(values), "", default)
    except UsageError as error:
        raise UsageError(error.message, where=str(path), hint=error.hint) from error


def _with_levels(values: object) -> object:
    """The same choices, with even levels for a model of another width, so that it does not get the preset's table, and
    without what only a hybrid has, or one whose first pictures need no network, for others."""
    model = values.get("model") if isinstance(values, dict) else None
    if not isinstance(values, dict) or not isinstance(model, dict):
        return values
    implied: dict[str, object] = {"level_bits": []} if "bits_per_token" in model else {}
    of_pictures = dict.fromkeys(("residuals", "intra", "plain"), False)
    implied |= {"wavelet": False, "mean_between": False, **of_pictures} if model.get("hybrid") is False else {}
    implied |= of_pictures if model.get("wavelet") is False else {}
    return {**values, "model": {**implied, **model}}


def _build(kind: type[_Config], values: object, key: str, default: _Config | None) -> _Config:
    """A dataclass from a JSON object; what is left out comes from `default`, or from the class."""
    if not isinstance(values, dict):
        raise UsageError(f"{key or 'the whole file'}: must be an object, not {values!r}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise UsageError(f"{_join(key, unknown[0])}: unknown key", hint=f"known: {', '.join(names)}")
    given = {
        name: _value(hints[name], value, _join(key, name), getattr(default, name, None))
        for name, value in values.items()
    }
    if default is not None:
        given = {name: getattr(default, name) for name in names} | given
    try:
        return kind(**given)
    except TypeError as error:
        missing = [f.name for f in dataclasses.fields(kind) if f.name not in given]  # type: ignore[arg-type]
        raise UsageError(f"{_join(key, missing[0])}: missing") from error
    except TokcodecError as error:
        raise UsageError(f"{key}: {error.message}" if key else error.message) from error


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _value(hint: Any, value: object, key: str, default: object) -> Any:
    """One JSON value as the type that a field declares."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, key, default)
    if origin is Literal:
        if value not in arguments:
            raise UsageError(f"{key}: {value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{key}: must be a list, not {value!r}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        if len(kinds) != len(value):
            raise UsageError(f"{key}: must have {len(kinds)} entries, not {len(value)}")
        return tuple(_value(k, v, f"{key}[{n}]", None) for n, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if isinstance(hint, types.UnionType):
        raise TypeError(f"{key}: fields of configurations have one type")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{key}: must be {hint.__name__}, not {value!r}")
    return value
