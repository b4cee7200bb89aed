"""How many parameters the modules in range may keep, and what a share of heads leaves of them."""

from __future__ import annotations

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.planning.heads import plan_heads
from pruning.planning.selection import attention_parameters, removed_channels
from pruning.utils.errors import UsageError


def module_parameters(measurement: Measurement, blocks: range) -> int:
    """Parameters of both modules of all ``blocks`` before any cut."""
    total = 0
    for index in blocks:
        block = measurement.shape.blocks[index]
        total += block.attention.parameters(block.attention.units, block.attention.groups)
        total += block.ffn.parameters(block.ffn.units, 0)
    return total


def kept_parameters(measurement: Measurement, recipe: Recipe, blocks: range) -> int:
    """Parameters that the modules of ``blocks`` may keep: by the recipe's budget, or as many as
    its two ratios would leave. Raises UsageError when the budget cannot be met."""
    budget, shape = recipe.budget, measurement.shape
    before = module_parameters(measurement, blocks)
    if not budget.given:
        return before - _removed_by_ratios(measurement, recipe, blocks)
    in_blocks = sum(
        block.other_parameters
        + block.attention.parameters(block.attention.units, block.attention.groups)
        + block.ffn.parameters(block.ffn.units, 0)
        for block in shape.blocks
    )
    everything = in_blocks + shape.other_parameters
    if budget.megabytes is not None:
        wanted = everything - budget.megabytes * 1e6 / shape.bytes_per_element
    else:
        of = in_blocks if budget.of == "blocks" else everything
        wanted = (1.0 - budget.kept) * of
    # rounded up: a budget is a limit
    kept = before - max(0, -int(-wanted // 1))
    least = _least(measurement, blocks)
    if kept < least:
        share = 1.0 - (before - least) / in_blocks
        heads = "all heads" if budget.spare_heads else "one head"
        raise UsageError(
            f"The budget is too small: with {heads} and one channel left in every block of the "
            f"range, {share:.1%} of the block parameters stay; allow more or widen the range."
        )
    return kept


def _least(measurement: Measurement, blocks: range) -> int:
    total = 0
    for index in blocks:
        block = measurement.shape.blocks[index]
        for module in (block.attention, block.ffn):
            least = (module.experts * module.step, 1)
            units, groups = (module.units, module.groups) if module.fixed else least
            total += module.parameters(units, min(groups, module.groups))
    return total


def _removed_by_ratios(measurement: Measurement, recipe: Recipe, blocks: range) -> int:
    total = 0
    for index in blocks:
        block = measurement.shape.blocks[index]
        whole = block.attention.parameters(block.attention.units, block.attention.groups)
        total += whole - attention_after(measurement, recipe, index, recipe.heads.ratio)
        gone = 0 if block.ffn.fixed else removed_channels(recipe.ffn.ratio, block.ffn)
        total += gone * (block.ffn.unit_weights + block.ffn.unit_biases)
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
