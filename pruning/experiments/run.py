"""Carries an experiment out: cell by cell, what is finished is read from disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pruning.artifacts.cell import Cell
from pruning.artifacts.events import CancelCheck, ProgressCallback, ignore, never
from pruning.experiments.base import Experiment
from pruning.experiments.cells import CellStore
from pruning.experiments.executors.base import Executor, Job
from pruning.experiments.facts import paper_model
from pruning.experiments.figures import activations, graphs
from pruning.experiments.grid import all_cells
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
    executor: Executor | None = None,
    on_cell: Callable[[Place, Cell], None] = lambda place, cell: None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Result:
    """All rows of ``experiment`` for ``loaded``, computed by ``executor`` (None: here).

    ``on_cell`` gets each place and its cell once that is on disk: a cancel, or the end of the
    process, loses at most the cells that are being computed.
    Raises what :func:`pruning.experiments.grid.all_cells` raises.
    """
    from pruning.pipeline import measure_model

    shape = loaded.adapter.model_shape(loaded.model)
    known = paper_model(loaded.source, shape)
    sampling = adapted(experiment, request, loaded.source, shape)
    callbacks: dict[str, Any] = {"progress": progress, "should_cancel": should_cancel}
    if experiment.only_measures:
        make = graphs if experiment.kind == "graphs" else activations
        recipe = sampling.recipe(request.seed).changed(model={"source": loaded.source})
        return make(experiment, measure_model(loaded, recipe, **callbacks), request.quick)
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
    cells = all_cells(
        CellStore(loaded, protocol_for(experiment, request, sampling.seq_len)),
        [Job(place.name, place.recipe) for place in rows],
        stage="reproduce",
        executor=executor,
        on_cell=lambda place, cell: on_cell(rows[place], cell),
        **callbacks,
    )
    return result_of(experiment, request, loaded.source, shape, list(zip(rows, cells, strict=True)))
