"""The same share in every block of the range."""

from __future__ import annotations

from pruning.allocation.base import ALLOCATIONS, BlockRatios


def allocate(measurement, recipe, blocks: range) -> list[BlockRatios]:
    """The recipe's two ratios, repeated."""
    return [BlockRatios(recipe.heads.ratio, recipe.ffn.ratio) for _ in blocks]


ALLOCATIONS.add(
    "uniform",
    allocate,
    title="Uniform",
    summary="The same ratio in every block of the range.",
    source="UL-UM of the paper's tables",
)
