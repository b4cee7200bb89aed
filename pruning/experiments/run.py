"""Carries an experiment out: cell by cell, what is finished is read from disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pruning.artifacts.cell import Cell
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.experiments.base import Experiment
from pruning.experiments.cells import CellStore, compute_cell
from pruning.experiments.facts import paper_model
from pruning.experiments.figures import activations, graphs
from pruning.experiments.places import Place, places
from pruning.experiments.request import Request, adapted, protocol_for
from pruning.experiments.result import Result
from pruning.experiments.table import result_of
from pruning.planning.checks import check_recipe

if TYPE_CHECKING:
    from pruning.models.loading.loaded import LoadedModel


def run_experiment(
    loaded: LoadedModel,
    experiment: Experiment,
    request: Request,
    *,
    on_cell: Callable[[Place, Cell], None] = lambda place, cell: None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Result:
    """All rows of ``experiment`` for ``loaded``.

    ``on_cell`` gets each place and its cell once that is on disk: a cancel, or the end of the
    process, loses at most the cell that is being computed.
    Raises what :func:`pruning.experiments.cells.compute_cell` raises.
    """
    shape = loaded.adapter.model_shape(loaded.model)
    known = paper_model(loaded.source, shape)
    sampling = adapted(experiment, request, loaded.source, shape)
    callbacks = {"progress": progress, "should_cancel": should_cancel}
    if experiment.only_measures:
        make = graphs if experiment.kind == "graphs" else activations
        return make(loaded, experiment, sampling, request.quick, request.seed, **callbacks)
    protocol = protocol_for(experiment, request, sampling.seq_len)
    store = CellStore(loaded, protocol)
    rows = places(
        experiment,
        loaded,
        sampling,
        quick=request.quick,
        known=known,
        seed=request.seed,
        **callbacks,
    )
    for place in rows:
        if place.recipe is not None:
            check_recipe(place.recipe, shape)
    cells = []
    for done, place in enumerate(rows):
        stop_if(should_cancel)
        name = ", ".join(part for part in (place.method, place.setting) if part)

        def report(step: Progress, done: int = done, name: str = name) -> None:
            progress(Progress("reproduce", done, len(rows), f"{name}: {step.message}"))

        cell = store.get(place.recipe)
        if cell is None:
            cell = compute_cell(
                loaded,
                place.recipe,
                protocol,
                store.sources,
                progress=report,
                should_cancel=should_cancel,
            )
            store.put(place.recipe, cell)
        cells.append(cell)
        on_cell(place, cell)
        progress(Progress("reproduce", done + 1, len(rows), name))
    return result_of(experiment, request, loaded.source, shape, list(zip(rows, cells, strict=True)))
