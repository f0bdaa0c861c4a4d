"""The files of a results folder.

results.jsonl       measurements, see `record.py`
encodes.jsonl       every encode, those of the search for quantizers too
failed.json         quantizers at which an encoder failed, and others took their place
clips.json          what each clip is once read
machine.json        descriptions by the key that records carry
absent.json         why a codec that was asked for is not in the results
frames/             example frames at one rate, listed in index.json
work/               lossless clips and coded files, while they are needed
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokcodec.bench.clips import ClipFacts, facts_of
from tokcodec.bench.machine import Machine
from tokcodec.bench.record import BenchRecord, Setting, Speed
from tokcodec.bench.tasks import Encoded
from tokcodec.errors import MediaError, OutputError
from tokcodec.output import atomic, write_error


@contextlib.contextmanager
def open_store(folder: Path) -> Iterator[ResultStore]:
    """A results folder, made if it is not there; no other run can have it meanwhile.

    Raises:
        OutputError: Another run has it, or it cannot be written.
        MediaError: A file in it is not the bench's.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            try:
                # The system lets go of it however the process ends.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    "another run is writing here", where=str(folder), hint="wait for it, or name another folder"
                ) from error
            yield ResultStore(folder)
    except OSError as error:
        raise write_error(error, where=str(folder)) from error


class ResultStore:
    """What is known, and where it goes; made by :func:`open_store`.

    Args:
        folder: Of the results.

    Raises:
        MediaError: A file in it is not the bench's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._results, self._encodes = folder / "results.jsonl", folder / "encodes.jsonl"
        self._records = {record.key: record for record in map(BenchRecord.from_json, _read_lines(self._results))}
        self._known: dict[str, Encoded] = {}
        for line in _read_lines(self._encodes):
            key, encoded = _encoded_from(line, self._encodes)
            self._known[key] = encoded
        self._failed: dict[str, dict[str, Any]] = _read_json(folder / "failed.json", {})
        self._clips: dict[str, Any] = _read_json(folder / "clips.json", {})
        self._frames: list[dict[str, Any]] = _read_json(folder / "frames" / "index.json", [])

    @property
    def records(self) -> list[BenchRecord]:
        """All measurements, the last one of each key."""
        return list(self._records.values())

    def find(self, key: str) -> BenchRecord | None:
        """The measurement of this key."""
        return self._records.get(key)

    def add(self, record: BenchRecord) -> None:
        """Keep a measurement; it is on the disk when this returns.

        Raises:
            OutputError: The disk takes no more.
        """
        _append(self._results, record.to_json())
        self._records[record.key] = record

    def find_encode(self, key: str) -> Encoded | None:
        """The encode of this key."""
        return self._known.get(key)

    def add_encode(self, key: str, encoded: Encoded) -> None:
        """Keep an encode, likewise."""
        _append(self._encodes, json.dumps({"key": key, **dataclasses.asdict(encoded)}))
        self._known[key] = encoded

    def find_failed(self, key: str) -> str:
        """What the encoder said that failed at this key; "" where none did."""
        return str(self._failed[key]["reason"]) if key in self._failed else ""

    def add_failed(self, key: str, *, clip: str, codec: str, setting: Setting, reason: str) -> None:
        """Keep that an encoder fails at a setting, so that it is not tried again.

        Args:
            key: As of an encode.
            clip: Name.
            codec: Name.
            setting: What it was told.
            reason: What it said.

        Raises:
            OutputError: The disk takes no more.
        """
        self._failed[key] = {"clip": clip, "codec": codec, "setting": setting, "reason": reason}
        _write_json(self.folder / "failed.json", self._failed)

    def facts(self, key: str) -> ClipFacts | None:
        """What a clip is, if it was read before."""
        values = self._clips.get(key)
        return None if values is None else facts_of(values)

    def add_facts(self, key: str, facts: ClipFacts) -> None:
        """Keep what a clip is."""
        self._clips[key] = dataclasses.asdict(facts)
        _write_json(self.folder / "clips.json", self._clips)

    def add_machine(self, machine: Machine) -> None:
        """Keep the description of a machine."""
        path = self.folder / "machine.json"
        before = _read_json(path, {})
        if machine.key not in before:
            _write_json(path, {**before, machine.key: machine.description})

    def set_absent(self, absent: Mapping[str, str], asked: list[str]) -> None:
        """Keep why codecs are absent; what an earlier run said of codecs that were not asked for now stays."""
        path = self.folder / "absent.json"
        before = {name: reason for name, reason in _read_json(path, {}).items() if name not in asked}
        _write_json(path, {**before, **absent})

    def has_example(self, key: str) -> bool:
        """Whether the example frame of this key is here."""
        entry = next((entry for entry in self._frames if entry.get("key") == key), None)
        return entry is not None and (self.folder / "frames" / entry["file"]).is_file()

    def add_example(
        self,
        key: str,
        *,
        clip: str,
        codec: str,
        bits_per_pixel: float | None,
        target: float | None,
        number: int,
        picture: Path,
    ) -> None:
        """Keep a frame in the place of the one of this clip and codec that is kept.

        Args:
            key: The same for the same frame at the same rate.
            clip: Name.
            codec: Name, or "original".
            bits_per_pixel: Of the coded clip; None for the original.
            target: The rate that was searched.
            number: Of the frame in the clip.
            picture: A PNG; it is moved.

        Raises:
            OutputError: The disk takes no more.
        """
        file = f"{clip}/{codec}.png"
        path = self.folder / "frames" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        others = [entry for entry in self._frames if (entry["clip"], entry["codec"]) != (clip, codec)]
        # Without its entry first: a run that is killed in between leaves no picture under another's rate.
        _write_json(self.folder / "frames" / "index.json", others)
        shutil.move(picture, path)
        entry = {"clip": clip, "codec": codec, "bits_per_pixel": bits_per_pixel, "target": target, "frame": number}
        self._frames = [*others, {**entry, "file": file, "key": key}]
        _write_json(self.folder / "frames" / "index.json", self._frames)

    def work_folder(self, clip: str) -> Path:
        """Where a clip's large files are while they are needed."""
        return self.folder / "work" / clip

    def clear_work(self, clip: str | None = None) -> None:
        """Remove those files, of one clip or all."""
        shutil.rmtree(self.folder / "work" if clip is None else self.work_folder(clip), ignore_errors=True)


def _encoded_from(line: str, path: Path) -> tuple[str, Encoded]:
    try:
        values = json.loads(line)
        speed = Speed(**values["speed"])
        return values["key"], Encoded(coded_bytes=int(values["coded_bytes"]), speed=speed, machine=values["machine"])
    except (ValueError, KeyError, TypeError) as error:
        raise MediaError(f"not a line of tokcodec bench: {error}", where=str(path)) from error


def _read_lines(path: Path) -> list[str]:
    """Whole lines; a last one that a killed run left unfinished is cut off.

    Raises:
        MediaError: The file is something else.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if not all(line.startswith(b"{") for line in data.splitlines()):
        raise MediaError("is not a file of tokcodec bench", where=str(path), hint="name another folder")
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return whole.decode("utf-8", "replace").splitlines()


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(error, where=str(path)) from error


def _read_json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default
    except ValueError as error:
        raise MediaError("is not a file of tokcodec bench", where=str(path), hint="name another folder") from error


def _write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path, force=True) as part:
        part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
