"""Ratios of single blocks, set by hand."""

from __future__ import annotations

from pruning.allocation.base import ALLOCATIONS, Allocation, BlockRatios


def allocate(measurement, recipe, blocks: range) -> list[BlockRatios]:
    """``recipe.by_hand`` where it names the block, else the recipe's two ratios."""
    return [
        BlockRatios(rule.heads, rule.ffn)
        for rule in (
            recipe.by_hand.get(index) or BlockRatios(recipe.heads.ratio, recipe.ffn.ratio)
            for index in blocks
        )
    ]


ALLOCATIONS.add(
    "by_hand",
    Allocation(allocate),
    title="By hand",
    summary="A ratio for each block, as set in the recipe; the others take the common ratios.",
    source="ML-MM of the paper's tables",
)
