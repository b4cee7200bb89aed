"""Perplexity along one setting of a recipe, for several methods; finished points stay on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pruning.artifacts.cell import Cell, Protocol
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.recipe import Recipe
from pruning.experiments.cells import CellStore, compute_cell
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
    on_point: Callable[[SweepPoint], None] = lambda point: None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> list[SweepPoint]:
    """The dense point and every point of ``wanted``; those on disk are not computed again.

    ``on_point`` gets each point once it is there. Cancelling (or a crash) loses only the point that
    is being computed.
    Raises what :func:`pruning.pipeline.prune` and :func:`pruning.evaluate.perplexity` raise.
    """
    shape = loaded.shape
    for point in wanted.points():
        check_recipe(wanted.recipe_at(*point), shape)
    protocol = Protocol((wanted.text,), wanted.seq_len, wanted.windows)
    store = CellStore(loaded, protocol)
    tasks: list[tuple[str, float | None]] = [("dense", None), *wanted.points()]
    points = []
    for done, (preset, value) in enumerate(tasks):
        stop_if(should_cancel)
        name = "dense" if value is None else f"{PRESETS.entry(preset).title} at {value:g}"

        def report(step: Progress, done: int = done, name: str = name) -> None:
            progress(Progress("sweep", done, len(tasks), f"{name}: {step.message}"))

        callbacks: dict[str, Any] = {"progress": report, "should_cancel": should_cancel}
        recipe = None if value is None else wanted.recipe_at(preset, value)
        cell = store.get(recipe)
        if cell is None:
            cell = store.put(recipe, compute_cell(loaded, recipe, protocol, **callbacks))
        point = _point(preset, value, cell)
        points.append(point)
        on_point(point)
        progress(Progress("sweep", done + 1, len(tasks), name))
    return points


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
