"""What a run left in its results folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokcodec.bench.record import BenchRecord
from tokcodec.errors import MediaError

RESULTS_NAME = "results.jsonl"
ORIGINAL = "original"
"""What the index of frames calls the frame before any codec."""


@dataclass(frozen=True, kw_only=True)
class ExampleFrame:
    """A decoded frame that was kept for looking at.

    Attributes:
        clip: Name of the clip.
        codec: Name of the codec, or "original".
        bits_per_pixel: Of the whole coded clip; None for the original.
        target: The rate that was searched, bits per pixel; None for the original, and where none was.
        frame: Number of the frame in the clip, from 0.
        path: PNG file.
    """

    clip: str
    codec: str
    bits_per_pixel: float | None
    target: float | None
    frame: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class FailedQuantizer:
    """A setting at which an encoder failed.

    Attributes:
        clip: Name of the clip.
        codec: Name of the codec.
        setting: As text.
        reason: What the encoder said.
    """

    clip: str
    codec: str
    setting: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Results:
    """A results folder.

    Attributes:
        records: Every measurement once, in the order they were made.
        machines: Description by the key that records carry.
        absent: Reason by name of each codec that was asked for and is not on the machine.
        failed: Quantizers at which an encoder failed, and others took their place.
        frames: Example frames whose files are there, by clip, the original first.
    """

    records: Sequence[BenchRecord]
    machines: dict[str, dict[str, Any]]
    absent: dict[str, str]
    failed: Sequence[FailedQuantizer]
    frames: Sequence[ExampleFrame]

    @property
    def clips(self) -> list[str]:
        """Names of all clips, in order."""
        return sorted({record.clip for record in self.records})

    @property
    def datasets(self) -> list[str]:
        """Names of all datasets, in order."""
        return sorted({record.dataset for record in self.records})

    @property
    def sizes(self) -> list[str]:
        """Sizes of the pictures, as text."""
        return sorted({f"{record.width}x{record.height}" for record in self.records})


def load_results(folder: Path) -> Results:
    """Read a results folder; a last line that a killed run left unfinished is passed over.

    Raises:
        MediaError: There are no results, a file is not what a run writes, or two clips share a name.
    """
    records = _records(folder / RESULTS_NAME)
    seen: dict[str, tuple[str, int, int]] = {}
    for record in records:
        identity = (record.clip_sha256, record.width, record.height)
        if seen.setdefault(record.clip, identity) != identity:
            raise MediaError(
                f"{record.clip!r} names two clips, or one clip at two sizes",
                where=str(folder),
                hint="give each dataset and size a results folder of its own",
            )
    absent = _object(folder / "absent.json")
    machines = {name: values for name, values in _object(folder / "machine.json").items() if isinstance(values, dict)}
    return Results(
        records=records,
        machines=machines,
        absent={codec: str(reason) for codec, reason in absent.items()},
        failed=_failed(folder / "failed.json"),
        frames=_frames(folder / "frames"),
    )


def _records(path: Path) -> list[BenchRecord]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(
            f"cannot be read: {error.strerror or error}", where=str(path), hint="name a folder that a run wrote"
        ) from error
    found: dict[str, BenchRecord] = {}
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            record = BenchRecord.from_json(line.decode())
        except (MediaError, UnicodeDecodeError) as error:
            raise MediaError(f"line {number}: {error}", where=str(path)) from error
        found[record.key] = record
    if not found:
        raise MediaError("holds no results", where=str(path), hint="run the bench first")
    return list(found.values())


def _json(path: Path) -> Any:
    """What a JSON file holds; None where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise MediaError(f"is not readable as JSON: {error}", where=str(path)) from error


def _object(path: Path) -> dict[str, Any]:
    found = _json(path)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise MediaError("is not a JSON object", where=str(path))
    return found


def _failed(path: Path) -> list[FailedQuantizer]:
    try:
        found = [
            FailedQuantizer(
                clip=str(item["clip"]),
                codec=str(item["codec"]),
                setting=", ".join(f"{name} {value}" for name, value in item["setting"].items()),
                reason=str(item["reason"]),
            )
            for item in _object(path).values()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise MediaError(f"is not a list of failures: {error!r}", where=str(path)) from error
    return sorted(found, key=lambda one: (one.clip, one.codec, one.setting))


def _frames(folder: Path) -> list[ExampleFrame]:
    index = folder / "index.json"
    try:
        listed = [
            ExampleFrame(
                clip=str(item["clip"]),
                codec=str(item["codec"]),
                bits_per_pixel=None if item.get("bits_per_pixel") is None else float(item["bits_per_pixel"]),
                target=None if item.get("target") is None else float(item["target"]),
                frame=int(item["frame"]),
                path=folder / str(item["file"]),
            )
            for item in _json(index) or []
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MediaError(f"is not an index of frames: {error!r}", where=str(index)) from error
    inside = folder.resolve()
    there = [frame for frame in listed if frame.path.resolve().is_relative_to(inside) and frame.path.is_file()]
    return sorted(there, key=lambda frame: (frame.clip, frame.codec != ORIGINAL, frame.codec))
