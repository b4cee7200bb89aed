"""The same share in every block of the range."""

from __future__ import annotations

from pruning.allocation.base import ALLOCATIONS, Allocation, BlockRatios
from pruning.allocation.budget import kept_parameters, module_parameters
from pruning.allocation.ranking import share_of_ffn


def allocate(measurement, recipe, blocks: range) -> list[BlockRatios]:
    """The recipe's two ratios, repeated; for a budget the same share of heads and channels (heads
    are few, so the channels make up for their rounding)."""
    if not recipe.budget.given:
        return [BlockRatios(recipe.heads.ratio, recipe.ffn.ratio) for _ in blocks]
    kept = kept_parameters(measurement, recipe, blocks)
    ratio = 1.0 - kept / module_parameters(measurement, blocks)
    shares = share_of_ffn(measurement, recipe, blocks, [ratio for _ in blocks], kept)
    return [BlockRatios(ratio, ffn) for ffn in shares]


ALLOCATIONS.add(
    "uniform",
    Allocation(allocate),
    title="Uniform",
    summary="The same ratio in every block of the range.",
    source="UL-UM of the paper's tables",
)
