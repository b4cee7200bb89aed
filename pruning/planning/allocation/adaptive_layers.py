"""Adaptive across layers: heads are ranked over all blocks, and so are channels."""

from __future__ import annotations

from pruning.planning.allocation.base import ALLOCATIONS, Allocation, BlockRatios
from pruning.planning.allocation.budget import kept_parameters, module_parameters
from pruning.planning.allocation.ranking import head_cost, ranked_ffn, ranked_heads


def allocate(measurement, recipe, blocks: range) -> list[BlockRatios]:
    """Heads give up their common share in all, channels theirs; where depends on the scores."""
    kept = kept_parameters(measurement, recipe, blocks)
    ratio = recipe.heads.ratio
    if recipe.budget.given:
        ratio = 1.0 - kept / module_parameters(measurement, blocks)
    shapes = [measurement.shape.blocks[index].attention for index in blocks]
    amount = sum(ratio * shape.units * head_cost(shape, recipe.heads.policy) for shape in shapes)
    heads = ranked_heads(measurement, recipe, blocks, amount, channels=False)
    return ranked_ffn(measurement, recipe, blocks, heads, kept)


ALLOCATIONS.add(
    "adaptive_layers",
    Allocation(allocate),
    title="Adaptive across layers",
    summary="Heads of all blocks are ranked together, and so are channels; each kind gives up the "
    "same share in all.",
    source="AL-UM of FLAP, An et al., AAAI 2024",
    cost="closed form",
    place=20,
)
