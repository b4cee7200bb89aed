"""The cells of a grid: finished ones are read from disk, an executor computes the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pruning.artifacts.cell import Cell
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.experiments.cells import CellStore
from pruning.experiments.executors.base import EXECUTORS, Executor, Job


def all_cells(
    store: CellStore,
    rows: Sequence[Job],
    *,
    stage: str,
    executor: Executor | None = None,
    on_cell: Callable[[int, Cell], None],
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> list[Cell]:
    """The cell of every row, in the order of ``rows``, computed by ``executor`` (None: here).

    ``on_cell`` gets a row's place and its cell once that is on disk: a cancel, or the end of the
    process, loses at most the cells that are being computed. Rows with the same recipe share one.
    Raises what :meth:`Executor.compute` raises.
    """
    executor = executor or EXECUTORS["local"]()
    places: dict[Path, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(store.path(row.recipe), []).append(place)
    found: dict[int, Cell] = {}

    def take(job: Job, cell: Cell) -> None:
        for place in places[store.path(job.recipe)]:
            found[place] = cell
            on_cell(place, cell)
            progress(Progress(stage, len(found), len(rows), rows[place].name))

    def finished(job: Job, cell: Cell) -> None:
        take(job, store.put(job.recipe, cell))

    missing = []
    for job in (rows[first] for first, *_ in places.values()):
        stop_if(should_cancel)
        cell = store.get(job.recipe)
        if cell is None:
            missing.append(job)
        else:
            take(job, cell)
    if missing:
        executor.compute(
            store,
            missing,
            done=finished,
            report=lambda line: progress(Progress(stage, len(found), len(rows), line)),
            should_cancel=should_cancel,
        )
    return [found[place] for place in range(len(rows))]
