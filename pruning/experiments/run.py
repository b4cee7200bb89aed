"""Carries an experiment out: cell by cell, what is finished is read from disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pruning.artifacts.cell import Cell, Protocol
from pruning.artifacts.events import CancelCheck, ProgressCallback, ignore, never
from pruning.artifacts.shapes import ModelShape
from pruning.experiments.base import Experiment, Sampling, named_text
from pruning.experiments.cells import CellStore
from pruning.experiments.drawing import Bar, bars, lines
from pruning.experiments.executors.base import Executor, Job
from pruning.experiments.facts import PaperModel, paper_model, paper_values
from pruning.experiments.figures import activations, graphs
from pruning.experiments.grid import all_cells
from pruning.experiments.places import DENSE, Place, places
from pruning.experiments.result import Result, Value, protocol_of
from pruning.planning.checks import check_recipe

if TYPE_CHECKING:
    from pruning.models.loading.loaded import LoadedModel


@dataclass(frozen=True)
class Request:
    """What the caller of an experiment chooses. ``quick``: less text and fewer samples; the others
    take the place of what the experiment's file says (None: as there). ``tasks`` False: no
    zero-shot tasks."""

    quick: bool = False
    texts: tuple[str, ...] | None = None
    calibration: str | None = None
    windows: int | None = None
    task_data: str | None = None
    tasks: bool = True
    limit: int | None = None
    seed: int = 0


def sampling_of(experiment: Experiment, request: Request) -> Sampling:
    """The text that ``request`` leads to."""
    return experiment.sampled(
        request.quick,
        texts=request.texts,
        calibration=request.calibration,
        windows=request.windows,
        limit=request.limit,
    )


def protocol_for(experiment: Experiment, request: Request, seq_len: int | None = None) -> Protocol:
    """How the cells of ``request`` are evaluated."""
    sampling = sampling_of(experiment, request)
    return Protocol(
        texts=tuple(named_text(text)[1] for text in sampling.texts),
        seq_len=seq_len or sampling.seq_len,
        windows=sampling.windows,
        tasks=experiment.tasks if request.tasks else (),
        task_data=request.task_data,
        limit=sampling.limit,
    )


def window_length(source: str, shape: ModelShape, sampling: Sampling, request: Request) -> int:
    """Tokens per window: the paper's for its own models in a full run, and never more than the
    model's positions."""
    known = None if request.quick else paper_model(source, shape)
    return min(known.seq_len if known else sampling.seq_len, shape.max_positions)


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
    shape = loaded.adapter.model_shape(loaded.model)
    known = paper_model(loaded.source, shape)
    sampling = sampling_of(experiment, request)
    seq_len = window_length(loaded.source, shape, sampling, request)
    sampling = sampling.model_copy(update={"seq_len": seq_len})
    callbacks: dict[str, Any] = {"progress": progress, "should_cancel": should_cancel}
    if experiment.kind in ("graphs", "activations"):
        make = graphs if experiment.kind == "graphs" else activations
        return make(loaded, experiment, sampling, request.quick, request.seed, **callbacks)
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
        CellStore(loaded, protocol_for(experiment, request, seq_len)),
        [Job(place.name, place.recipe) for place in rows],
        stage="reproduce",
        executor=executor,
        on_cell=lambda place, cell: on_cell(rows[place], cell),
        **callbacks,
    )
    return _result(experiment, request, known, sampling, rows, cells)


def _result(
    experiment: Experiment,
    request: Request,
    known: PaperModel | None,
    sampling: Sampling,
    rows: Sequence[Place],
    cells: Sequence[Cell],
) -> Result:
    texts = [named_text(text)[0] for text in sampling.texts]
    made = [_row(experiment, known, texts, *pair) for pair in zip(rows, cells, strict=True)]
    columns = tuple(dict.fromkeys(name for row in made for name in row))
    recovery = sampling.recovery_samples or sampling.samples
    repaired = "" if experiment.kind == "heads" else f"recovery on {recovery}, "
    text = (
        f"Calibration: {sampling.samples} x {sampling.seq_len} tokens of {sampling.calibration}, "
        f"{repaired}seed {request.seed}."
    )
    if experiment.columns(request.quick):
        text = f"Calibration and recovery: {sampling.calibration}, seed {request.seed}."
    return Result(
        name=experiment.name,
        title=experiment.title,
        model=cells[0].model,
        paper_model=known.name if known else None,
        quick=request.quick,
        shows=experiment.shows,
        protocol=f"{protocol_of(cells)} {text}",
        notes=experiment.notes,
        columns=columns,
        rows=tuple(made),
        cells=tuple(cells),
        drawings=tuple(_charts(rows, made, texts)),
    )


def _row(
    experiment: Experiment, known: PaperModel | None, texts: Sequence[str], place: Place, cell: Cell
) -> dict[str, Value]:
    row: dict[str, Value] = {"setting": place.setting, "method": place.method}
    row |= {name: score.perplexity for name, score in zip(texts, cell.texts, strict=True)}
    if cell.zero_shot is not None:
        for score in cell.zero_shot.scores:
            row[score.task], row[f"{score.task} ±"] = score.accuracy, score.stderr
        row["mean"], row["mean ±"] = cell.zero_shot.mean, cell.zero_shot.mean_stderr
    row |= {
        "kept": cell.kept,
        "heads removed": cell.heads_removed,
        "parameters": cell.parameters,
        "MACs/token": cell.macs_per_token,
        "seconds": cell.seconds,
        "peak MiB": cell.peak_memory_bytes >> 20,
    }
    setting = place.setting or next(iter(experiment.sizes), "")
    paper = paper_values(experiment.table, known, setting, place.paper)
    return row | {f"paper {name}": value for name, value in paper.items()}


def _charts(
    rows: Sequence[Place], made: Sequence[dict[str, Value]], texts: Sequence[str]
) -> list[str]:
    """Perplexity (and mean accuracy) as bars per setting, or as lines over the samples."""
    if any(place.x is not None for place in rows):
        return [_lines(text, rows, made) for text in texts]
    found = []
    for setting in dict.fromkeys(place.setting for place in rows if place.setting):
        here = [r for p, r in zip(rows, made, strict=True) if p.setting in ("", setting)]
        for name in (*texts, *(["mean"] if "mean" in made[0] else [])):
            share = name == "mean"
            what = "mean accuracy" if share else f"perplexity on {name}"
            shown = [
                Bar(str(row["method"]), _number(row[name]), _number(row.get(f"paper {name}")))
                for row in here
            ]
            found.append(bars(f"{setting}: {what}", "share" if share else "", shown))
    return found


def _lines(text: str, rows: Sequence[Place], made: Sequence[dict[str, Value]]) -> str:
    found: dict[str, list[tuple[float, float]]] = {}
    for place, row in zip(rows, made, strict=True):
        pairs = ((place.method, row[text]), (f"paper: {place.method}", row.get(f"paper {text}")))
        for name, value in pairs:
            if place.method != DENSE and place.x is not None and _number(value) is not None:
                found.setdefault(name, []).append((place.x, float(value)))  # type: ignore[arg-type]
    return lines(f"Perplexity on {text}", "calibration samples", found)


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) else None
