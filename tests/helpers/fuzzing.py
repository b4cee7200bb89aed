"""Odd inputs by the hundred: seeded in the fast tests, more and drawn anew under ``make fuzz``."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings

from pruning.utils.errors import LONGEST, HeadroomError

TIMES = int(os.environ.get("HEADROOM_FUZZ", "1"))
SECONDS = 10
"""Of computing: a busy machine is slow, and slowness is no failure."""


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """Settings of a hypothesis test of so many ``examples``."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(work: Callable[[], Any], refusal: type[HeadroomError]) -> Any:
    """What ``work`` gives, or the sentence of its ``refusal``: one line, short, soon. Any other
    error goes on, and fails the test."""
    started = time.process_time()
    try:
        found = work()
    except refusal as error:
        found = str(error)
        assert 20 < len(found) <= LONGEST and found.isprintable(), found
        assert found.endswith("."), found
    assert time.process_time() - started < SECONDS
    return found


@contextmanager
def memory_below(mebibytes: int) -> Iterator[None]:
    """What Python allocates within stays below so much."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < mebibytes, f"{peak:.0f} MiB"
