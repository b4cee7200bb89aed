"""A finished run."""

from __future__ import annotations

from dataclasses import dataclass

from pruning.artifacts.comparison import Comparison
from pruning.artifacts.events import ModuleEvent, RecoveryCheck
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.report import Report
from pruning.artifacts.shapes import Widths
from pruning.models.loading.loaded import LoadedModel


@dataclass(frozen=True)
class PruneRun:
    """A finished run. ``pruned`` shares untouched parameters with ``dense``; ``plan`` is what
    was carried out, after re-scoring; ``seconds`` excludes loading the model. ``check``: None where
    nothing was recovered, or the recipe wants no check; ``comparison``: what both models answered,
    where they were asked."""

    dense: LoadedModel
    pruned: LoadedModel
    recipe: Recipe
    plan: Plan
    widths: tuple[Widths, ...]
    events: tuple[ModuleEvent, ...]
    seconds: float
    report: Report
    check: RecoveryCheck | None = None
    comparison: Comparison | None = None
