"""What a worker thread does to tell two models apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from app import settings
from app.jobs.job import Task
from app.jobs.progress import LOAD, Step
from pruning.artifacts.events import Progress, stop_if

COMPARE = Step("compare", "comparing block by block", 2.0)


@dataclass(frozen=True)
class Text:
    """The text that both models read: ``windows`` of ``seq_len`` tokens of ``source``."""

    source: str
    windows: int
    seq_len: int


@dataclass(frozen=True)
class Side:
    """One of the two models, called ``name``: that of a ``run`` (a PruneRun), or what lies at a
    ``place``."""

    name: str
    place: str | None = None
    run: Any = None
    which: Literal["dense", "pruned"] = "pruned"


def comparing(first: Side, second: Side, text: Text | None, device: str) -> Task:
    """The result is a Difference. Models of runs are in memory; what lies elsewhere is read one
    block at a time."""

    def work(progress, should_cancel):
        from pruning.difference.compare import Passage, compare_models

        versions = []
        for side in (first, second):
            progress(Progress("load", len(versions), 2, f"Opening {side.name}"))
            versions.append(_version(side, device))
            stop_if(should_cancel)
        progress(Progress("load", 2, 2, f"Opened {second.name}"))
        passage = None if text is None else Passage(text.source, text.windows, text.seq_len)
        return compare_models(*versions, passage, progress=progress, should_cancel=should_cancel)

    return Task(work, (LOAD, COMPARE))


def _version(side: Side, device: str) -> Any:
    from pruning.difference.compare import Version, opened
    from pruning.models.loading.memory_estimate import estimate

    if side.run is not None:
        plan = side.run.plan if side.which == "pruned" else None
        return Version(side.name, getattr(side.run, side.which), plan)
    settings.current().check_size(side.place, estimate(side.place, device=device).weight_bytes)
    return replace(opened(side.place, device), name=side.name)
