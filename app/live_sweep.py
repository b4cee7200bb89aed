"""A sweep at work: what the worker and the page share."""

from __future__ import annotations

from dataclasses import dataclass, field

from pruning.sweep import Sweep, SweepPoint


@dataclass(frozen=True)
class Live:
    """A sweep and its points so far: the worker appends, the page reads."""

    wanted: Sweep
    points: list[SweepPoint] = field(default_factory=list)
