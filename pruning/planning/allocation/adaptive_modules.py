"""Adaptive across modules: in each block heads and channels are ranked together."""

from __future__ import annotations

from pruning.planning.allocation.base import ALLOCATIONS, Allocation, BlockSparsity
from pruning.planning.allocation.budget import kept_parameters, module_parameters
from pruning.planning.allocation.ranking import ranked_ffn, ranked_heads


def allocate(measurement, recipe, blocks: range) -> list[BlockSparsity]:
    """Every block gives up the same share of its parameters; of what kind depends on the scores."""
    share = kept_parameters(measurement, recipe, blocks) / module_parameters(measurement, blocks)
    sparsities: list[BlockSparsity] = []
    for index in blocks:
        block = range(index, index + 1)
        whole = module_parameters(measurement, block)
        kept = int(share * whole)
        heads = ranked_heads(measurement, recipe, block, whole - kept, channels=True)
        sparsities += ranked_ffn(measurement, recipe, block, heads, kept)
    return sparsities


ALLOCATIONS.add(
    "adaptive_modules",
    Allocation(allocate),
    title="Adaptive across modules",
    summary="Every block gives up the same share of its parameters; inside a block heads and "
    "channels are ranked together.",
    source="UL-AM of FLAP, An et al., AAAI 2024",
    cost="closed form",
    place=30,
)
