"""The same share in every block of the range."""

from __future__ import annotations

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import ModuleShape
from pruning.planning.allocation.base import ALLOCATIONS, Allocation, BlockSparsity
from pruning.planning.allocation.budget import kept_parameters, module_parameters
from pruning.planning.allocation.ranking import enough_heads, uniform_ffn_sparsity
from pruning.planning.head_policies.base import policy_for


def allocate(measurement: Measurement, recipe: Recipe, blocks: range) -> list[BlockSparsity]:
    """The recipe's two ratios, repeated. For a budget the share that it takes from every module:
    as many whole heads (or groups of them) as are within it, and the same share of channels in all
    blocks for what the heads leave to be removed; more heads where that is not enough."""
    if not recipe.budget.given:
        return [BlockSparsity(recipe.heads.ratio, recipe.ffn.ratio) for _ in blocks]
    kept = kept_parameters(measurement, recipe, blocks)
    sparsity = 1.0 - kept / module_parameters(measurement.shape, blocks)
    shapes = [measurement.shape.blocks[index].attention for index in blocks]
    heads = [_within(sparsity, shape, recipe.heads.policy) for shape in shapes]
    heads = enough_heads(measurement, recipe, blocks, heads, kept)
    channels = uniform_ffn_sparsity(measurement, recipe, blocks, heads, kept)
    return [BlockSparsity(*pair) for pair in zip(heads, channels, strict=True)]


def _within(sparsity: float, shape: ModuleShape, policy: str) -> float:
    """The largest share of heads up to ``sparsity`` that can go: few heads in few groups would be
    rounded up to far more than the share."""
    step = policy_for(policy, shape).step(shape)
    return step * int(sparsity * shape.units / step + 1e-9) / shape.units


ALLOCATIONS.add(
    "uniform",
    Allocation(allocate),
    title="Uniform",
    summary="The same ratio in every block of the range.",
    source="UL-UM of the paper's tables",
    cost="closed form",
    place=10,
)
