"""What stands under its final name is always whole: it is written aside and renamed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from pruning.utils.errors import HeadroomError, one_line
from pruning.utils.leftovers import dead, own_prefix, sweep_dead

_NEW, _OLD = ".headroom.", ".headroom-was."
"""Temporary folders: what is being written, and what it replaces."""


@contextmanager
def written_aside(target: Path, stays: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; rename it when the block ends well.

    An earlier folder of the same name is replaced only then, unless ``stays()``: what another
    process has made there meanwhile does as well. Raises HeadroomError with one line when the disk
    is full or the place is not writable.
    """
    target = Path(target)
    with _beside(target) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # safetensors writes its files private
        if not stays():
            _replace(temporary, target)


@contextmanager
def file_aside(target: Path) -> Iterator[Path]:
    """The same for one file: yields a path that is renamed to ``target``."""
    target = Path(target)
    with _beside(target) as temporary:
        yield temporary / target.name
        os.replace(temporary / target.name, target)


def check_place(target: Path) -> None:
    """Raise HeadroomError before long work when nothing could be written beside ``target``, which
    is tried; folders above it that are missing are not made."""
    try:
        folder = target.absolute().parent
        while not folder.exists():
            folder = folder.parent
        _tidy(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=own_prefix(_NEW)):
            pass
    except OSError as error:
        raise HeadroomError(
            f"{target} cannot be written: {error.strerror or error}; name a folder that you may "
            "write to."
        ) from None


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _tidy(target.parent)
        temporary = _temporary(target.parent, _NEW)
        os.chmod(temporary, 0o755)
        yield temporary
    except Exception as error:
        if _is_full(error):
            raise HeadroomError(f"The disk is full; {target} was not written.") from None
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        reason = getattr(error, "strerror", None) or one_line(error)
        raise HeadroomError(f"{target} cannot be written: {reason}.") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _is_full(error: Exception) -> bool:
    """Whether ``error`` comes of a full disk: safetensors and tokenizers wrap the system's error
    into texts of their own, and numpy says only how much it could not write."""
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "No space left" in str(error)
        or re.fullmatch(r"\d+ requested and \d+ written", str(error)) is not None
    )


def _tidy(folder: Path) -> None:
    """Remove what killed processes left; what they were about to replace comes back."""
    for old in dead(folder, _OLD):
        _bring_back(old)
    sweep_dead(folder, _OLD)
    sweep_dead(folder, _NEW)


def _temporary(folder: Path, prefix: str) -> Path:
    return Path(tempfile.mkdtemp(dir=folder, prefix=own_prefix(prefix)))


def _replace(temporary: Path, target: Path) -> None:
    """Rename; when another process makes ``target`` meanwhile, the newer folder wins."""
    while not _renamed(temporary, target):
        old = _temporary(target.parent, _OLD)
        try:
            with suppress(FileNotFoundError):  # it has just gone
                os.rename(target, old / target.name)
            if _renamed(temporary, target):
                return
        finally:
            _bring_back(old)
            shutil.rmtree(old, ignore_errors=True)


def _renamed(temporary: Path, target: Path) -> bool:
    """Whether ``temporary`` could take the place; False when there is a folder already."""
    try:
        os.rename(temporary, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _bring_back(old: Path) -> None:
    """Rename what was set aside back where nothing has taken its place."""
    with suppress(OSError):
        for was in old.iterdir():
            if not (old.parent / was.name).exists():
                os.rename(was, old.parent / was.name)
