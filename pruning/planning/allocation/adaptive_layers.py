"""Adaptive across layers: heads are ranked over all blocks, and so are channels."""

from __future__ import annotations

from pruning.planning.allocation.base import ALLOCATIONS, Allocation, BlockSparsity
from pruning.planning.allocation.budget import kept_parameters, module_parameters
from pruning.planning.allocation.ranking import head_parameters, ranked_ffn, ranked_heads


def allocate(measurement, recipe, blocks: range) -> list[BlockSparsity]:
    """Heads give up their common share in all, channels theirs; where depends on the scores."""
    kept = kept_parameters(measurement, recipe, blocks)
    sparsity = recipe.heads.ratio
    if recipe.budget.given:
        sparsity = 1.0 - kept / module_parameters(measurement, blocks)
    to_remove = sum(
        sparsity
        * measurement.shape.blocks[index].attention.units
        * head_parameters(measurement, recipe, index)
        for index in blocks
    )
    heads = ranked_heads(measurement, recipe, blocks, to_remove, channels=False)
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
