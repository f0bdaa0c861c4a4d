"""What a study shows: `study.json`, written once and read by the server and the score."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tokcodec.errors import MediaError, UsageError

PLAN_NAME = "study.json"
MEDIA_FOLDER = "media"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Stimulus:
    """One clip as one codec gives it back.

    Attributes:
        id: Of its file; does not tell the codec.
        codec: Name.
        rate: Rate of the comparison, as text ("0.03"); "" where a study has one rate without a number.
        clip: Name.
        file: Below the study's folder.
        bits_per_pixel: Measured; None where it is not known.
        width: Pixels.
        height: Pixels.
        frames: How many.
        frame_rate: Frames a second.
    """

    id: str
    codec: str
    rate: str
    clip: str
    file: str
    bits_per_pixel: float | None
    width: int
    height: int
    frames: int
    frame_rate: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two codecs on one clip at one rate; which side each takes is drawn for every rater.

    Attributes:
        id: Of the pair.
        first: Id of a stimulus.
        second: Id of another.
    """

    id: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study.

    Attributes:
        seed: Of ids, sides and orders.
        stimuli: All of them.
        pairs: All of them.
        originals: File by clip, where raters are shown the original; empty where not.
        notes: What a reader of the scores should know.
    """

    seed: str
    stimuli: Sequence[Stimulus]
    pairs: Sequence[Pair]
    originals: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()

    def stimulus(self, name: str) -> Stimulus:
        """The one of this id.

        Raises:
            UsageError: There is none.
        """
        for stimulus in self.stimuli:
            if stimulus.id == name:
                return stimulus
        raise UsageError(f"the study has no clip {name!r}")

    def pair(self, name: str) -> Pair:
        """The one of this id.

        Raises:
            UsageError: There is none.
        """
        for pair in self.pairs:
            if pair.id == name:
                return pair
        raise UsageError(f"the study has no pair {name!r}")

    def sides(self, rater: str, pair: Pair) -> tuple[Stimulus, Stimulus]:
        """Left and right for this rater: drawn by the seed, the same at every call."""
        first, second = self.stimulus(pair.first), self.stimulus(pair.second)
        return (first, second) if digest(self.seed, "side", rater, pair.id)[0] % 2 else (second, first)

    def order(self, rater: str) -> list[Pair]:
        """All pairs in this rater's order: drawn by the seed, the same at every call."""
        return sorted(self.pairs, key=lambda pair: digest(self.seed, "order", rater, pair.id))


def digest(*words: str) -> bytes:
    """SHA-256 of words; no two lists of words give the same bytes."""
    return hashlib.sha256(json.dumps(words).encode()).digest()


def make_pairs(stimuli: Sequence[Stimulus]) -> list[Pair]:
    """Every two codecs on every clip at every rate.

    Raises:
        UsageError: There is no pair, or two clips of a pair differ in size, length or frame rate.
    """
    pairs: list[Pair] = []
    for first, second in combinations(stimuli, 2):
        if (first.clip, first.rate) != (second.clip, second.rate):
            continue
        for what in ("width", "height", "frames", "frame_rate"):
            if getattr(first, what) != getattr(second, what):
                raise UsageError(
                    f"{first.clip} differs between {first.codec} and {second.codec} in {what.replace('_', ' ')}: "
                    f"{getattr(first, what):g} and {getattr(second, what):g}",
                    hint="pairs are played in step, so both must be alike",
                )
        pairs.append(Pair(id=f"p{len(pairs) + 1:04d}", first=first.id, second=second.id))
    if not pairs:
        raise UsageError("there is nothing to compare", hint="a study needs two codecs with a clip of the same name")
    return pairs


def write_plan(folder: Path, study: Study) -> None:
    """Write `study.json`."""
    values = {"format": "tokcodec-study", "version": VERSION, **dataclasses.asdict(study)}
    (folder / PLAN_NAME).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_plan(folder: Path) -> Study:
    """Read a study's folder.

    Raises:
        MediaError: It is none, or of another version.
    """
    path = folder / PLAN_NAME
    hint = "name a folder that `tokcodec study make` wrote"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != "tokcodec-study" or values.pop("version") != VERSION:
            raise ValueError("of another format or version")
        values["stimuli"] = [Stimulus(**item) for item in values["stimuli"]]
        values["pairs"] = [Pair(**item) for item in values["pairs"]]
        study = Study(**values)
        for pair in study.pairs:
            study.stimulus(pair.first), study.stimulus(pair.second)
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror or error}", where=str(path), hint=hint) from error
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise MediaError(f"is not a study: {error}", where=str(path), hint=hint) from error
    return study
