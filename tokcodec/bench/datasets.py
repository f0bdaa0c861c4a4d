"""Which clips a dataset has, where they are, and what is wrong with a file."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from tokcodec.errors import MediaError, UsageError
from tokcodec.evaluation.clips import VIDEO_SUFFIXES, digest_of, find_clips

MANIFEST = Path(__file__).with_name("datasets.toml")
ROOT_VARIABLE = "TOKCODEC_DATASETS"
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
RAW_SUFFIX = ".yuv"
_BYTES_A_PIXEL = {"yuv420p": Fraction(3, 2), "yuv420p10le": Fraction(3)}


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """A clip, and where it is.

    Attributes:
        name: Without suffix.
        path: A video, a raw .yuv file or a folder of pictures; None is a clip that is made.
        frames: How many it shall have; None where that is not known.
        width: Of its pictures, pixels; None where the file says.
        height: Likewise.
        rate: Frames a second; None where the file says.
        pixel_format: Of a raw file.
        raw_bytes: Size of a raw file; None where it follows from the numbers above.
    """

    name: str
    path: Path | None
    frames: int | None = None
    width: int | None = None
    height: int | None = None
    rate: Fraction | None = None
    pixel_format: str = "yuv420p"
    raw_bytes: int | None = None

    def digest(self) -> str:
        """SHA-256 of the file, of all pictures with their names, or of the recipe; 64 hex digits.

        Raises:
            MediaError: A file cannot be read.
        """
        if self.path is None:
            return hashlib.sha256(f"{self.name} {self.width}x{self.height}x{self.frames}".encode()).hexdigest()
        if self.path.is_dir():
            text = "\n".join(f"{path.name} {digest_of(path)}" for path in pictures_of(self.path))
            return hashlib.sha256(text.encode()).hexdigest()
        return digest_of(self.path)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Clips under a name.

    Attributes:
        name: Of the manifest, or of the folder.
        size: Width and height at which it is measured unless asked otherwise; None is that of the files.
        clips: In order.
        how: Where to get it, for people.
    """

    name: str
    size: tuple[int, int] | None
    clips: tuple[ClipSource, ...]
    how: str = ""


def dataset_names(manifest: Path = MANIFEST) -> list[str]:
    """Names in the manifest."""
    return list(tomllib.loads(manifest.read_text(encoding="utf-8")))


def find_dataset(name: str, *, root: Path | None = None, manifest: Path = MANIFEST) -> Dataset:
    """A dataset of the manifest, or any folder of videos.

    Args:
        name: A name of the manifest, or a path.
        root: Folder of the dataset's files, or of one folder for each dataset; None takes the environment variable.
        manifest: What is known of the named datasets.

    Raises:
        UsageError: There is no such dataset, or its folder is not known.
        MediaError: A file is missing or too short, or the folder has no videos.
    """
    known: dict[str, dict[str, Any]] = tomllib.loads(manifest.read_text(encoding="utf-8"))
    if name not in known:
        return _folder(name, sorted(known))
    entry = known[name]
    how = f"{entry['source']}: {' '.join(entry['how'].split())}"
    folder = None if entry.get("generated") else _root(name, root, how)
    clips = tuple(_clip(values, folder, pictures=bool(entry.get("pictures")), how=how) for values in entry["clips"])
    size = None if entry["size"] == "source" else parse_size(entry["size"])
    return Dataset(name=name, size=size, clips=clips, how=how)


def parse_size(text: str) -> tuple[int, int] | None:
    """Width and height of "640x360"; None for "source".

    Raises:
        UsageError: It is neither.
    """
    if text == "source":
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise UsageError(f"{text!r} is not a size", hint="for example 640x360, or source")
    return int(match[1]), int(match[2])


def pictures_of(folder: Path) -> list[Path]:
    """Pictures directly in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)


def _folder(name: str, known: list[str]) -> Dataset:
    folder = Path(name)
    if not folder.is_dir():
        raise UsageError(f"no dataset and no folder is called {name!r}", hint=f"datasets: {', '.join(known)}")
    clips = tuple(ClipSource(name=path.stem, path=path) for path in find_clips(folder))
    if len({clip.name for clip in clips}) < len(clips):
        raise UsageError("two videos have the same name but for the suffix", where=name, hint="rename one")
    return Dataset(name=folder.resolve().name, size=None, clips=clips)


def _root(name: str, root: Path | None, how: str) -> Path:
    if root is None:
        stated = os.environ.get(ROOT_VARIABLE)
        if not stated:
            raise UsageError(f"where is {name}?", hint=f"give --root DIR or set {ROOT_VARIABLE}. {how}")
        root = Path(stated)
    folder = root / name if (root / name).is_dir() else root
    if not folder.is_dir():
        raise UsageError("is no folder", where=str(root), hint=f"give --root DIR or set {ROOT_VARIABLE}. {how}")
    return folder


def _clip(values: dict[str, Any], folder: Path | None, *, pictures: bool, how: str) -> ClipSource:
    known = {key: values[key] for key in ("frames", "width", "height", "pixel_format", "raw_bytes") if key in values}
    path = None if folder is None else _find(values["name"], folder, pictures=pictures, how=how)
    clip = ClipSource(name=values["name"], path=path, rate=Fraction(values["rate"]), **known)
    if path is not None:
        _check_length(clip, path, how)
    return clip


def _find(name: str, folder: Path, *, pictures: bool, how: str) -> Path:
    if pictures and (folder / name).is_dir():
        return folder / name
    suffixes = (*VIDEO_SUFFIXES, RAW_SUFFIX)
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and (path.stem == name or path.stem.startswith(f"{name}_"))
    )
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} files are the clip {name}: {', '.join(path.name for path in found)}",
            where=str(folder),
            hint="leave one there",
        )
    if not found:
        what = f"folder {name}" if pictures else f"{name}*.mp4, .y4m or .yuv"
        raise MediaError(f"the clip {name} is missing: no {what}", where=str(folder), hint=f"get it: {how}")
    return found[0]


def _check_length(clip: ClipSource, path: Path, how: str) -> None:
    """What can be seen without decoding; the rest shows when the clip is read."""
    if clip.frames is None:
        return
    if path.is_dir():
        count = len(pictures_of(path))
        if count < clip.frames:
            message = f"the clip {clip.name} is short: {count} of {clip.frames} pictures"
            raise MediaError(message, where=str(path), hint=f"get it again: {how}")
    elif path.suffix.lower() == RAW_SUFFIX:
        if clip.width is None or clip.height is None:
            raise UsageError("a raw file needs width and height in the manifest", where=str(path))
        wanted = clip.raw_bytes
        if wanted is None:
            wanted = int(clip.frames * clip.width * clip.height * _BYTES_A_PIXEL[clip.pixel_format])
        size = path.stat().st_size
        if size != wanted:
            state = "short" if size < wanted else "too long"
            message = f"the clip {clip.name} is {state}: {size} bytes instead of {wanted}"
            raise MediaError(message, where=str(path), hint=f"get it again: {how}")
