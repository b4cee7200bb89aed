"""What the least squares of a run take, in FLOP of a model that reads in float32.

The orders are those of the algorithms: a layer of ``m`` inputs and ``d`` outputs, ``n`` tokens. The
numbers before them were timed on modules of 576 and 1,536 inputs, one thread, and count what is
slower than a product of matrices (float64, factorisations, copies) as so much more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import ModelShape
from pruning.planning.planner import needs_loss_curves
from pruning.recovery import RECOVERIES, eliminates

CURVES_OF_GROUPS = 3
"""Loss curves of an attention module whose heads share keys: heads, heads by turns, groups."""
CUTS_ALL = 0.25
"""Share of the blocks that must go for loss curves to cut into every module; where less goes they
leave as many more as they are."""


@dataclass(frozen=True)
class _Layer:
    """An out_proj: ``inputs``, ``outputs``, and the loss ``curves`` of its units."""

    inputs: int
    outputs: int
    curves: int

    def elimination(self) -> float:
        return 6.0 * self.inputs**3 + 16.0 * self.inputs**2 * self.outputs

    def refit(self) -> float:
        """With the search for its damping."""
        return 22.0 * self.inputs**2 * self.outputs

    def equations(self, tokens: float) -> float:
        return 1.6 * tokens * self.inputs * (self.inputs + self.outputs)

    def curve_fits(self, tokens: float) -> float:
        """Repairs at every width and damping, on ``tokens`` to probe."""
        return 13.0 * tokens * self.inputs**2 * self.curves


def of_prune(recipe: Recipe, shape: ModelShape, tokens: float) -> float:
    """FLOP of collecting ``tokens`` and of all solves of a run."""
    recovery = RECOVERIES[recipe.recovery.method]
    total = 0.0
    for layer in _layers(recipe, shape):
        if recovery.uses_tokens:
            total += layer.equations(tokens) + recovery.solves * layer.refit()
        if eliminates(recipe):
            total += layer.elimination()
    return _share_cut(recipe) * total


def of_curves(recipe: Recipe, shape: ModelShape, tokens: float) -> float:
    """FLOP of the loss curves of all modules, on ``tokens`` of which half are probed."""
    total = 0.0
    for layer in _layers(recipe, shape, everywhere=True):
        total += layer.equations(tokens / 2) + layer.curve_fits(tokens / 2)
        if eliminates(recipe):
            total += 0.6 * layer.curves * layer.elimination()
    return total


def _layers(recipe: Recipe, shape: ModelShape, everywhere: bool = False) -> Iterator[_Layer]:
    """Those that may lose units; with ``everywhere`` all."""
    reach = slice(None) if everywhere else slice(recipe.blocks.start, recipe.blocks.end)
    heads = everywhere or _cuts_heads(recipe)
    for block in shape.blocks[reach]:
        attention, ffn = block.attention, block.ffn
        if heads:
            curves = CURVES_OF_GROUPS if attention.units_per_group > 1 else 1
            yield _Layer(attention.units * attention.unit_width, shape.hidden_size, curves)
        for _ in range(ffn.experts):
            yield _Layer(ffn.units // ffn.experts, shape.hidden_size, 1)


def _cuts_heads(recipe: Recipe) -> bool:
    heads, budget = recipe.heads, recipe.budget
    return bool(heads.ratio or heads.threshold or recipe.marks) or (
        budget.given and not budget.spare_heads
    )


def _share_cut(recipe: Recipe) -> float:
    """Share of the modules that lose units."""
    kept = recipe.budget.kept
    if kept is None or not needs_loss_curves(recipe):
        return 1.0
    return min(1.0, (1.0 - kept) / CUTS_ALL)
