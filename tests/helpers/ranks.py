"""Commands of several ranks, as torchrun would start them, in forked processes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.helpers.processes import Command, Ended
from tests.helpers.waiting import wait_for

LEAVING = 20
"""Seconds; torchrun gives thirty."""


def together(argv: Sequence[str], place: Path, size: int = 2) -> list[Ended]:
    """How ``size`` ranks of ``headroom ARGV`` ended; their caches and logs are in ``place``. When
    one fails the others may leave by themselves before they are killed, as under torchrun."""
    place.mkdir()
    port = _free_port()
    started = [
        Command(
            argv, place / f"cache{rank}", place / f"log{rank}", partial(_join, rank, size, port)
        )
        for rank in range(size)
    ]
    wait_for(lambda: any(_failed(command) for command in started) or not any(map(_runs, started)))
    lost = signal.SIGKILL if any(_failed(command) for command in started) else None
    for command in started:
        command.process.join(LEAVING)
    return [command.end(lost) for command in started]


def _failed(command: Command) -> bool:
    return command.process.exitcode not in (None, 0)


def _runs(command: Command) -> bool:
    return command.process.exitcode is None


def _join(rank: int, size: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
