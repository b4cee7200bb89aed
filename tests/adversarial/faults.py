"""Faults that strike a process at a moment of its work; each is given to it before the work."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = {
    "os.chmod",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "tempfile.mkdtemp",
    "tempfile.mkstemp",
}
"""Audit events of Python that change files; ``open`` for writing besides."""


@dataclass(frozen=True)
class AtChange:
    """Do ``strike`` right before the change number ``at`` of any file."""

    at: int
    strike: Callable[[], Any]

    def __call__(self) -> None:
        count = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event in CHANGES or (event == "open" and _writes(*arguments)):
                count += 1
                if count == self.at:
                    self.strike()

        sys.addaudithook(watch)


def _writes(path: Any, _mode: Any, flags: int) -> bool:
    return path != os.devnull and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def dying(signal: int) -> None:
    os.kill(os.getpid(), signal)


def removing(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def file_limit(size: int) -> None:
    """No file may grow beyond ``size`` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def memory_limit(more: int) -> None:
    """The process may take ``more`` bytes than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def clock(step: float) -> None:
    """Every look at the clock finds it ``step`` seconds further (or further back) than it was."""
    real, looks = time.time, iter(range(10**9))
    time.time = lambda: real() + step * next(looks)
