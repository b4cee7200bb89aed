"""A sweep at work: what the worker and the page share."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.jobs import tasks
from app.jobs.job import Work
from app.session import paths, state, visitor_jobs
from pruning.presets import PRESETS
from pruning.sweep import Sweep, SweepPoint


@dataclass(frozen=True)
class Live:
    """A sweep and its points so far: the worker appends, the page reads."""

    wanted: Sweep
    points: list[SweepPoint] = field(default_factory=list)

    @property
    def titles(self) -> dict[str, str]:
        """What the swept presets are called."""
        return {name: PRESETS.entry(name).title for name in self.wanted.presets}


def start(wanted: Sweep, kind: str, title: str) -> None:
    """Queue ``wanted`` as a job of ``kind``; paths outside the roots are refused."""
    live, device = Live(wanted), state.device()

    def make() -> Work:
        paths.check_recipe(wanted.recipe)
        paths.check_corpus(wanted.text)
        return tasks.sweeping(visitor_jobs.models(), wanted, device, live.points.append)

    visitor_jobs.start(kind, title, make, request=live, estimate=seconds(wanted))


def seconds(wanted: Sweep) -> float | None:
    """How long ``wanted`` will take with none of its points on disk; None: there is no telling."""
    measurement = state.current_measurement()
    if wanted.recipe.model.source != measurement.model or not visitor_jobs.tells_time():
        return None
    return visitor_jobs.estimator().of_sweep(wanted, measurement.shape)
