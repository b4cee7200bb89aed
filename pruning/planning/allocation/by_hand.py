"""Ratios of single blocks, set by hand."""

from __future__ import annotations

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.planning.allocation.base import ALLOCATIONS, Allocation, BlockSparsity
from pruning.utils.errors import UsageError


def allocate(measurement: Measurement, recipe: Recipe, blocks: range) -> list[BlockSparsity]:
    """``recipe.by_hand`` where it names the block, else the recipe's two ratios. Raises what
    :func:`check` raises."""
    check(recipe, blocks)
    return [
        BlockSparsity(rule.heads, rule.ffn)
        for rule in (
            recipe.by_hand.get(index) or BlockSparsity(recipe.heads.ratio, recipe.ffn.ratio)
            for index in blocks
        )
    ]


def check(recipe: Recipe, blocks: range) -> None:
    """Raise UsageError for blocks outside the range and when there is a budget as well."""
    if recipe.budget.given:
        raise UsageError(
            "The allocation by_hand takes ratios and knows no budget; remove the budget, or choose "
            "another allocation."
        )
    outside = sorted(set(recipe.by_hand) - set(blocks))
    if outside:
        raise UsageError(
            f"by_hand names block {outside[0]}, which is not among the blocks that may be cut "
            f"({blocks.start} to {blocks.stop - 1}); remove it or widen the range."
        )


ALLOCATIONS.add(
    "by_hand",
    Allocation(allocate, check=check),
    title="By hand",
    summary="A ratio for each block, as set in the recipe; the others take the common ratios.",
    source="ML-MM of the paper's tables",
    cost="closed form",
    place=50,
)
