"""Adaptive across layers and modules: one ranking of everything."""

from __future__ import annotations

from pruning.planning.allocation.base import ALLOCATIONS, Allocation, BlockSparsity
from pruning.planning.allocation.budget import kept_parameters, module_parameters
from pruning.planning.allocation.ranking import ranked_ffn, ranked_heads


def allocate(measurement, recipe, blocks: range) -> list[BlockSparsity]:
    """The weakest heads and channels of all blocks go, weighed by their parameters."""
    kept = kept_parameters(measurement, recipe, blocks)
    to_remove = module_parameters(measurement, blocks) - kept
    heads = ranked_heads(measurement, recipe, blocks, to_remove, channels=True)
    return ranked_ffn(measurement, recipe, blocks, heads, kept)


ALLOCATIONS.add(
    "adaptive",
    Allocation(allocate),
    title="Adaptive across layers and modules",
    summary="Heads and channels of all blocks are ranked together by their standardised scores.",
    source="AL-AM of FLAP, An et al., AAAI 2024",
    cost="closed form",
    place=40,
)
