"""FLAP's adaptive allocations: units are ranked by their standardised scores, over the layers, over
the modules of each block, or over both."""

from __future__ import annotations

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.planning.allocation.base import ALLOCATIONS, Allocation, BlockSparsity
from pruning.planning.allocation.budget import kept_parameters, module_parameters
from pruning.planning.allocation.ranking import head_parameters, ranked_ffn, ranked_heads


def over_layers(measurement: Measurement, recipe: Recipe, blocks: range) -> list[BlockSparsity]:
    """Heads give up their common share in all, channels theirs; where depends on the scores."""
    kept = kept_parameters(measurement, recipe, blocks)
    sparsity = recipe.heads.ratio
    if recipe.budget.given:
        sparsity = 1.0 - kept / module_parameters(measurement.shape, blocks)
    to_remove = 0.0
    for index in blocks:
        heads = sparsity * measurement.shape.blocks[index].attention.units
        to_remove += heads * head_parameters(measurement, recipe, index)
    shares = ranked_heads(measurement, recipe, blocks, to_remove, channels=False)
    return ranked_ffn(measurement, recipe, blocks, shares, kept)


def over_modules(measurement: Measurement, recipe: Recipe, blocks: range) -> list[BlockSparsity]:
    """Every block gives up the same share of its parameters; of what kind depends on the scores."""
    share = kept_parameters(measurement, recipe, blocks) / module_parameters(
        measurement.shape, blocks
    )
    sparsities: list[BlockSparsity] = []
    for index in blocks:
        block = range(index, index + 1)
        kept = int(share * module_parameters(measurement.shape, block))
        sparsities += _ranked_together(measurement, recipe, block, kept)
    return sparsities


def over_both(measurement: Measurement, recipe: Recipe, blocks: range) -> list[BlockSparsity]:
    """The weakest heads and channels of all blocks go, weighed by their parameters."""
    kept = kept_parameters(measurement, recipe, blocks)
    return _ranked_together(measurement, recipe, blocks, kept)


def _ranked_together(
    measurement: Measurement, recipe: Recipe, blocks: range, kept: int
) -> list[BlockSparsity]:
    to_remove = module_parameters(measurement.shape, blocks) - kept
    heads = ranked_heads(measurement, recipe, blocks, to_remove, channels=True)
    return ranked_ffn(measurement, recipe, blocks, heads, kept)


ALLOCATIONS.add(
    "adaptive_layers",
    Allocation(over_layers),
    title="Adaptive across layers",
    summary="Heads of all blocks are ranked together, and so are channels; each kind gives up the "
    "same share in all.",
    source="AL-UM of FLAP, An et al., AAAI 2024",
    cost="closed form",
    place=20,
)
ALLOCATIONS.add(
    "adaptive_modules",
    Allocation(over_modules),
    title="Adaptive across modules",
    summary="Every block gives up the same share of its parameters; inside a block heads and "
    "channels are ranked together.",
    source="UL-AM of FLAP, An et al., AAAI 2024",
    cost="closed form",
    place=30,
)
ALLOCATIONS.add(
    "adaptive",
    Allocation(over_both),
    title="Adaptive across layers and modules",
    summary="Heads and channels of all blocks are ranked together by their standardised scores.",
    source="AL-AM of FLAP, An et al., AAAI 2024",
    cost="closed form",
    place=40,
)
