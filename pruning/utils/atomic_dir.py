"""What stands under its final name is always whole: it is written aside and renamed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pruning.utils.errors import HeadroomError, one_line
from pruning.utils.leftovers import sweep_dead


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; rename it when the block ends well.

    An earlier folder of the same name is replaced only then. Raises HeadroomError with one
    line when the disk is full or the place is not writable.
    """
    target = Path(target)
    with _beside(target) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # safetensors writes its files private
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
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{_prefix(target)}{os.getpid()}."):
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
        sweep_dead(target.parent, _prefix(target))
        temporary = _temporary(target)
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


def _prefix(target: Path) -> str:
    """Names of temporary folders begin with this, then comes the process."""
    return f".{target.name}.{socket.gethostname()}."


def _temporary(target: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{_prefix(target)}{os.getpid()}."))


def _replace(temporary: Path, target: Path) -> None:
    """Rename; when another process made ``target`` meanwhile, the newer folder wins."""
    if target.exists():
        old = _temporary(target)
        os.rename(target, old / "was")
        os.rename(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(temporary, target)
