"""Outputs that appear whole or not at all, and never replace anything unasked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from tokcodec import interruption
from tokcodec.errors import OutputError, UsageError

_HINTS = {
    errno.ENOSPC: "the disk is full: make room, or choose another place",
    errno.EDQUOT: "the quota is used up: make room, or choose another place",
    errno.EFBIG: "the file would be larger than is allowed there",
    errno.EACCES: "choose a place where you may write",
    errno.EPERM: "choose a place where you may write",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "does the folder exist?",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


def write_error(error: OSError, *, where: str) -> OutputError:
    """What the system says of an output, with a hint that fits."""
    hint = _HINTS.get(error.errno or 0, "choose another place")
    return OutputError(f"cannot be written: {error.strerror or error}", where=where, hint=hint)


def check_target(target: Path, *, force: bool, source: object = None) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Args:
        target: A file, or a folder for pictures.
        force: Whether an existing one may be replaced.
        source: What is read; a path must not be the target.

    Raises:
        UsageError: The target is the source, or has no name.
        OutputError: It exists and `force` is False, holds foreign files, or its folder is missing.
    """
    try:
        if isinstance(source, (str, Path)) and target.exists() and target.samefile(source):
            raise UsageError("input and output are the same file", where=str(target), hint="name another output")
        _check_place(target, force=force)
    except OSError as error:
        raise write_error(error, where=str(target)) from error


def _check_place(target: Path, *, force: bool) -> None:
    where = str(target)
    if target.name in ("", ".", ".."):
        raise UsageError("names no file", where=where, hint="give a name")
    if not target.parent.is_dir():
        raise OutputError("the folder does not exist", where=str(target.parent), hint="make it first")
    if not os.access(target.parent, os.W_OK):
        raise OutputError("the folder is not writable", where=str(target.parent), hint="choose another place")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target.is_file() or target.is_dir()):
        raise OutputError("is neither a file nor a folder", where=where, hint="write to - and redirect it there")
    if not force:
        raise OutputError("exists already", where=where, hint="use --force to replace it")
    if target.is_dir() and not all(_is_numbered_picture(path) for path in target.iterdir()):
        raise OutputError("is a folder that holds other files", where=where, hint="name a new folder")


def _is_numbered_picture(path: Path) -> bool:
    return re.fullmatch(r"frame_\d{6,}\.png", path.name) is not None and path.is_file()


@contextlib.contextmanager
def atomic(target: Path, *, force: bool, source: object = None) -> Iterator[Path]:
    """A temporary path beside `target` that takes its name when the block ends well, and is removed when not.

    The block may make a file or a folder at the path. A link is followed: what it points to is replaced.

    Raises:
        UsageError: As :func:`check_target`.
        OutputError: As :func:`check_target`, or when the disk takes no more.
    """
    check_target(target, force=force, source=source)
    place = target.resolve()
    part = place.with_name(f"{_part_prefix()}{os.getpid()}-{secrets.token_hex(4)}.part")
    _remove_orphans(place.parent)
    try:
        yield part
        interruption.check()
        check_target(target, force=force, source=source)  # somebody else may have written it meanwhile
        if place.is_dir():
            shutil.rmtree(place)
        part.replace(place)
    except OutputError as error:
        if error.where is None and isinstance(error.__cause__, OSError):
            raise write_error(error.__cause__, where=str(target)) from error
        raise
    except OSError as error:
        raise write_error(error, where=str(target)) from error
    finally:
        _remove(part)


def _part_prefix() -> str:
    """Tells the machine, so that a folder that several machines share is safe."""
    return f".tokcodec-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}-"


def _remove_orphans(folder: Path) -> None:
    """Remove what runs on this machine left behind when they were killed."""
    for path in folder.glob(f"{_part_prefix()}*.part"):
        number = path.name.removeprefix(_part_prefix()).split("-")[0]
        if number.isdecimal() and not _is_running(int(number)):
            _remove(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
