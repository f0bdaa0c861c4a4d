"""Outputs that appear whole or not at all, and never replace anything unasked."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tokcodec.errors import OutputError, TokcodecError


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Raises:
        OutputError: It exists and `force` is False, or holds foreign files, or its folder is missing.
    """
    parent = target.parent
    if not parent.is_dir():
        raise OutputError("the folder does not exist", where=str(parent), hint="make it first")
    if not os.access(parent, os.W_OK):
        raise OutputError("the folder is not writable", where=str(parent), hint="choose another place")
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise OutputError("exists already", where=str(target), hint="use --force to replace it")
    if target.is_dir() and any(not _is_ours(path) for path in target.iterdir()):
        raise OutputError(
            "is a folder that holds other files",
            where=str(target),
            hint="name a new folder, or empty this one",
        )


def _is_ours(path: Path) -> bool:
    return path.name.startswith("frame_") and path.suffix == ".png" and path.is_file()


@contextlib.contextmanager
def atomic(target: Path, *, force: bool) -> Iterator[Path]:
    """A temporary path beside `target` that takes its name when the block ends well, and is removed when not.

    The block may make a file or a folder at the path.

    Raises:
        OutputError: As :func:`check_target`, or when the disk takes no more.
    """
    check_target(target, force=force)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        _publish(part, target, force=force)
    except OSError as error:
        if isinstance(error, TokcodecError):
            raise
        raise OutputError(
            f"cannot be written: {error.strerror or error}", where=str(target), hint="is the disk full?"
        ) from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _publish(part: Path, target: Path, *, force: bool) -> None:
    # Somebody else may have written the target meanwhile.
    check_target(target, force=force)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    part.replace(target)
