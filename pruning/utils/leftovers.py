"""What killed processes left on the disk goes at the next occasion."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Collection
from pathlib import Path


def sweep_dead(folder: Path, prefix: str) -> None:
    """Remove the folders in ``folder`` whose names are ``prefix``, the number of a process that is
    gone, and something that is no digit."""
    for left in folder.iterdir():
        owner = re.match(r"(\d+)\D", left.name.removeprefix(prefix))
        if left.name.startswith(prefix) and owner and left.is_dir() and not _alive(int(owner[1])):
            shutil.rmtree(left, ignore_errors=True)


def sweep_old(folder: Path, seconds: float, keep: Collection[Path] = ()) -> None:
    """Remove the folders in ``folder``, if there is one, in which nothing was written for so many
    ``seconds``, but for those to ``keep``."""
    for left in folder.iterdir() if folder.is_dir() else ():
        if left not in keep and time.time() - _changed(left) > seconds:
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
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
