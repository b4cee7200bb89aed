"""Perplexity along one setting of a recipe, for several methods; finished points stay on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pruning.artifacts.cell import Cell, Protocol
from pruning.artifacts.events import CancelCheck, ProgressCallback, ignore, never
from pruning.artifacts.recipe import Recipe
from pruning.experiments.cells import CellStore
from pruning.experiments.executors.base import Executor, Job
from pruning.experiments.grid import all_cells
from pruning.planning.checks import check_recipe
from pruning.presets import PRESETS, with_preset
from pruning.utils.errors import UsageError
from pruning.utils.registry import unknown_name

if TYPE_CHECKING:
    from pruning.models.loading.loaded import LoadedModel

Axis = Literal["ratio", "tau", "samples"]
AXES: dict[str, str] = {
    "ratio": "share of the blocks' parameters removed",
    "tau": "similarity threshold τ, nats",
    "samples": "calibration samples",
}
"""What can be varied, and its unit. Samples: figure 4 of the paper."""

PLAIN_CUT = (
    "Where recovery says plain, the recovered model was worse on held-out text than the cut alone, "
    "so the cut is what stands there."
)
"""What belongs beside points of which one is no recovered model."""


@dataclass(frozen=True)
class Sweep:
    """``values`` of ``axis`` for each preset, everything else from ``recipe``; perplexity on the
    first ``windows`` (None: all) windows of ``seq_len`` tokens of ``text``."""

    recipe: Recipe
    axis: Axis
    values: tuple[float, ...]
    presets: tuple[str, ...]
    text: str = "sample"
    seq_len: int = 128
    windows: int | None = 16

    def __post_init__(self) -> None:
        """Raises UsageError, also for values that no recipe takes."""
        if self.axis not in AXES:
            raise unknown_name("axis", self.axis, AXES)
        if not self.values or not self.presets:
            raise UsageError("A sweep needs at least one value and one preset; name some.")
        for preset, value in self.points():
            self.recipe_at(preset, value)

    def points(self) -> list[tuple[str, float]]:
        """``(preset, value)`` in the order of work: every method's first value comes early."""
        return [(preset, value) for value in self.values for preset in self.presets]

    def recipe_at(self, preset: str, value: float) -> Recipe:
        """The whole recipe of one point."""
        recipe = with_preset(self.recipe, preset)
        if self.axis == "tau":
            return recipe.changed(heads={"threshold": value})
        if self.axis == "samples":
            return recipe.changed(calibration={"samples": value}, recovery={"samples": None})
        # a budget takes what a method's own units allow, so that methods are compared at one size
        if not 0.0 <= value < 1.0:
            raise UsageError(f"A ratio of {value:g} is not possible; choose one from 0 to below 1.")
        budget = {"kept": round(1.0 - value, 9), "of": "blocks", "megabytes": None}
        return recipe.changed(heads={"threshold": None}, budget=budget)


@dataclass(frozen=True)
class SweepPoint:
    """One finished point. ``perplexity`` None: it overflows. ``kept``: share of the blocks'
    parameters that is left; ``seconds``: pruning and evaluating; ``recovery``: see
    :class:`pruning.artifacts.cell.Cell`. ``preset`` of the dense model is ``dense`` and its
    ``value`` None."""

    preset: str
    value: float | None
    perplexity: float | None
    nll: float
    kept: float
    parameters: int
    seconds: float
    protocol: str
    recovery: Literal["recovered", "plain"] | None = None


def sweep(
    loaded: LoadedModel,
    wanted: Sweep,
    *,
    executor: Executor | None = None,
    on_point: Callable[[SweepPoint], None] = lambda point: None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> list[SweepPoint]:
    """The dense point and every point of ``wanted``, computed by ``executor`` (None: here); those
    on disk are not computed again.

    ``on_point`` gets each point once it is there. Cancelling (or a crash) loses only what is being
    computed. Raises what :func:`pruning.experiments.grid.all_cells` raises.
    """
    shape = loaded.shape
    for point in wanted.points():
        check_recipe(wanted.recipe_at(*point), shape)
    rows: list[tuple[str, float | None]] = [("dense", None), *wanted.points()]
    points: dict[int, SweepPoint] = {}

    def on_cell(place: int, cell: Cell) -> None:
        points[place] = _point(*rows[place], cell)
        on_point(points[place])

    all_cells(
        CellStore(loaded, Protocol((wanted.text,), wanted.seq_len, wanted.windows)),
        [_job(wanted, *row) for row in rows],
        stage="sweep",
        executor=executor,
        on_cell=on_cell,
        progress=progress,
        should_cancel=should_cancel,
    )
    return [points[place] for place in range(len(rows))]


def _job(wanted: Sweep, preset: str, value: float | None) -> Job:
    if value is None:
        return Job("dense", None)
    name = f"{PRESETS.entry(preset).title} at {value:g}"
    return Job(name, wanted.recipe_at(preset, value))


def _point(preset: str, value: float | None, cell: Cell) -> SweepPoint:
    (score,) = cell.texts
    return SweepPoint(
        preset=preset,
        value=value,
        perplexity=score.perplexity,
        nll=math.inf if score.nll is None else score.nll,
        kept=cell.kept,
        parameters=cell.parameters,
        seconds=cell.seconds,
        protocol=score.protocol,
        recovery=cell.recovery,
    )
