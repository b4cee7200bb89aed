"""Time in tests: waiting for what must happen, and a clock that a test sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.helpers import PATIENCE


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait until ``condition()`` is true; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.005)


class Clock:
    """Stands in for the ``time`` of a module: ``monotonic`` goes on only when it is told to."""

    time, sleep = staticmethod(time.time), staticmethod(time.sleep)

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += seconds
