"""How many parameters the modules in range may keep, and what a share of heads leaves of them."""

from __future__ import annotations

from math import ceil

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Budget, Recipe
from pruning.planning.heads import plan_heads
from pruning.planning.selection import attention_parameters, dense_parameters, removed_channels
from pruning.utils.errors import UsageError


def module_parameters(measurement: Measurement, blocks: range) -> int:
    """Parameters of both modules of all ``blocks`` before any cut."""
    shapes = (measurement.shape.blocks[index] for index in blocks)
    return sum(dense_parameters(shape.attention) + dense_parameters(shape.ffn) for shape in shapes)


def kept_parameters(measurement: Measurement, recipe: Recipe, blocks: range) -> int:
    """Parameters that the modules of ``blocks`` may keep: by the recipe's budget, or as many as
    its two ratios would leave. Raises UsageError when the budget cannot be met."""
    before = module_parameters(measurement, blocks)
    if not recipe.budget.given:
        return before - _removed_by_ratios(measurement, recipe, blocks)
    in_blocks = module_parameters(measurement, range(len(measurement.shape.blocks)))
    in_blocks += sum(block.other_parameters for block in measurement.shape.blocks)
    # rounded up: a budget is a limit
    kept = before - max(0, ceil(_over_budget(measurement, recipe.budget, in_blocks)))
    least = _least(measurement, blocks)
    if kept < least:
        share = 1.0 - (before - least) / in_blocks
        heads = "all heads" if recipe.budget.spare_heads else "one head"
        raise UsageError(
            f"The budget is too small: with {heads} and one channel left in every block of the "
            f"range, {share:.1%} of the block parameters stay; allow more or widen the range."
        )
    return kept


def _over_budget(measurement: Measurement, budget: Budget, in_blocks: int) -> float:
    """Parameters by which the dense model, with so many in its blocks, exceeds ``budget``."""
    shape = measurement.shape
    everything = in_blocks + shape.other_parameters
    if budget.megabytes is not None:
        return everything - budget.megabytes * 1e6 / shape.bytes_per_element
    return (1.0 - (budget.kept or 0.0)) * (in_blocks if budget.of == "blocks" else everything)


def _least(measurement: Measurement, blocks: range) -> int:
    """Parameters of ``blocks`` when nothing more can go."""
    total = 0
    for index in blocks:
        block = measurement.shape.blocks[index]
        for module in (block.attention, block.ffn):
            least = (module.experts * module.step, min(1, module.groups))
            total += dense_parameters(module) if module.fixed else module.parameters(*least)
    return total


def _removed_by_ratios(measurement: Measurement, recipe: Recipe, blocks: range) -> int:
    total = 0
    for index in blocks:
        block = measurement.shape.blocks[index]
        total += dense_parameters(block.attention)
        total -= attention_after(measurement, recipe, index, recipe.heads.ratio)
        gone = 0 if block.ffn.fixed else removed_channels(recipe.ffn.ratio, block.ffn)
        total += gone * channel_parameters(measurement, index)
    return total


def attention_after(measurement: Measurement, recipe: Recipe, index: int, sparsity: float) -> int:
    """Parameters of block ``index``'s attention when a share of ``sparsity`` of its heads must
    go."""
    plan = plan_heads(measurement, recipe, index, sparsity)
    return attention_parameters(plan, measurement.shape.blocks[index].attention)


def channel_parameters(measurement: Measurement, index: int) -> int:
    """Parameters of one FFN channel of block ``index``."""
    shape = measurement.shape.blocks[index].ffn
    return shape.unit_weights + shape.unit_biases
