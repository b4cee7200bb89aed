"""One cell after the other, in this process, on the model that is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from pruning.artifacts.events import CancelCheck, Progress, stop_if
from pruning.experiments.cells import CellStore, compute_cell
from pruning.experiments.executors.base import EXECUTORS, Done, Executor, Job, Report


class Local(Executor):
    """What a single machine does best with a model that fills it."""

    def compute(
        self,
        store: CellStore,
        jobs: Sequence[Job],
        *,
        done: Done,
        report: Report,
        should_cancel: CancelCheck,
    ) -> None:
        for job in jobs:
            stop_if(should_cancel)

            def say(step: Progress, name: str = job.name) -> None:
                report(f"{name}: {step.message}")

            cell = compute_cell(
                store.loaded,
                job.recipe,
                store.protocol,
                store.sources,
                progress=say,
                should_cancel=should_cancel,
            )
            done(job, cell)


EXECUTORS.add(
    "local",
    Local,
    title="This process",
    summary="One cell after the other.",
    source="Headroom",
    place=10,
)
