"""What killed processes left on the disk goes at the next occasion.

Temporary files and folders are named after who makes them: a prefix, the machine, the process,
and a mark of this very process, for in a container the next one has the same machine and number.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

_MARK = secrets.token_hex(4)


def own_prefix(prefix: str) -> str:
    """How the names of this process's temporary files begin, those with ``prefix``."""
    return f"{prefix}{socket.gethostname()}.{os.getpid()}.{_MARK}."


def sweep_dead(folder: Path, prefix: str) -> None:
    """Remove the temporary files and folders with ``prefix`` in ``folder`` whose process, of this
    machine, is gone."""
    for left in dead(folder, prefix):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def dead(folder: Path, prefix: str) -> Iterator[Path]:
    """What :func:`sweep_dead` would remove."""
    begin = f"{prefix}{socket.gethostname()}."
    for left in list(folder.iterdir()):
        owner = re.match(r"(\d+)\.(?:([0-9a-f]{8})\.)?", left.name.removeprefix(begin))
        if left.name.startswith(begin) and owner and not _alive(int(owner[1]), owner[2]):
            yield left


def sweep_old(folder: Path, seconds: float, keep: Collection[Path] = ()) -> None:
    """Remove the folders in ``folder``, if there is one, in which nothing was written for so many
    ``seconds``, but for those to ``keep``. One that was written in the future, by a clock that was
    set back since, is as old as it is ahead."""
    for left in folder.iterdir() if folder.is_dir() else ():
        if left not in keep and abs(time.time() - _changed(left)) > seconds:
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int, mark: str | None) -> bool:
    if process == os.getpid():
        return mark in (None, _MARK)
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it runs, as somebody else
    return True


def _changed(place: Path) -> float:
    """When anything in ``place`` was last written (Unix time); now for what has just gone."""
    try:
        return max(p.stat().st_mtime for p in (place, *place.rglob("*")))
    except OSError:
        return time.time()
