"""How many parameters the modules in range may keep, and what a share of heads leaves of them."""

from __future__ import annotations

from math import ceil, lcm

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import Budget
from pruning.artifacts.shapes import KINDS, ModelShape, ModuleShape
from pruning.planning.head_policies.base import alternatives
from pruning.planning.heads import plan_heads
from pruning.planning.selection import attention_parameters, dense_parameters, removed_channels
from pruning.registries import RECOVERIES
from pruning.utils.errors import UsageError


def module_parameters(shape: ModelShape, blocks: range) -> int:
    """Parameters of both modules of all ``blocks`` before any cut."""
    of_range = (shape.blocks[index] for index in blocks)
    return sum(
        dense_parameters(block.attention) + dense_parameters(block.ffn) for block in of_range
    )


def kept_parameters(measurement: Measurement, recipe: Recipe, blocks: range) -> int:
    """Parameters that the modules of ``blocks`` may keep: by the recipe's budget, or as many as
    its two ratios would leave. Raises UsageError when the budget cannot be met."""
    shape = measurement.shape
    if not recipe.budget.given:
        return module_parameters(shape, blocks) - _removed_by_ratios(measurement, recipe, blocks)
    return within_budget(shape, recipe, blocks)


def within_budget(shape: ModelShape, recipe: Recipe, blocks: range) -> int:
    """Parameters that the recipe's budget leaves to the modules of ``blocks``, from the sizes of
    the model alone. Raises UsageError when it cannot be met."""
    before = module_parameters(shape, blocks)
    in_blocks = module_parameters(shape, range(len(shape.blocks)))
    in_blocks += sum(block.other_parameters for block in shape.blocks)
    over = _over_budget(shape, recipe.budget, in_blocks)
    # rounded up: a budget is a limit
    kept = before - (ceil(over) + added_biases(shape, recipe, blocks) if over > 0 else 0)
    least = _least(shape, recipe, blocks)
    if kept < least:
        share = 1.0 - (before - least) / in_blocks
        heads = "all heads" if recipe.budget.spare_heads else "the fewest heads"
        raise UsageError(
            f"The budget is too small: with {heads} and one channel left in every block of the "
            f"range, {share:.1%} of the block parameters stay; allow more or widen the range."
        )
    return kept


def added_biases(shape: ModelShape, recipe: Recipe, blocks: range) -> int:
    """Parameters of the biases that the recipe's recovery may add to the modules of ``blocks``: one
    to every output projection that has none, of modules that it may change."""
    rule = recipe.recovery
    recovery = RECOVERIES[rule.method]
    if not (recovery.adds_bias or (recovery.uses_tokens and rule.intercept == "add")):
        return 0
    everywhere = recovery.everywhere and rule.scope == "all"
    modules = [shape.blocks[index].module(kind) for index in blocks for kind in KINDS]
    # experts have no place for one
    without = [m for m in modules if m.fixed_biases == 0 and m.experts == 1]
    return shape.hidden_size * sum(everywhere or not module.fixed for module in without)


def check_budget(plan: Plan, recipe: Recipe, shape: ModelShape, blocks: range) -> None:
    """Raise UsageError when ``plan`` keeps more of ``blocks`` than the recipe's budget allows."""
    if not recipe.budget.given:
        return
    left = sum(
        size.attention.parameters(width.heads, width.kv_heads)
        + size.ffn.parameters(width.channels, 0)
        for size, width in ((shape.blocks[index], plan.widths[index]) for index in blocks)
    )
    over = left - within_budget(shape, recipe, blocks)
    if over > 0:
        raise UsageError(
            f"The budget cannot be met: {plan.kept_block_parameters:.1%} of the block parameters "
            f"would stay, {over:,} too many parameters. Allow more, widen the range, or change "
            "the allocation, the head policy or the marks."
        )


def _over_budget(shape: ModelShape, budget: Budget, in_blocks: int) -> float:
    """Parameters by which the dense model, with so many in its blocks, exceeds ``budget``."""
    everything = in_blocks + shape.other_parameters
    if budget.megabytes is not None:
        return everything - budget.megabytes * 1e6 / shape.bytes_per_element
    return (1.0 - (budget.kept or 0.0)) * (in_blocks if budget.of == "blocks" else everything)


def _least(shape: ModelShape, recipe: Recipe, blocks: range) -> int:
    """Parameters of ``blocks`` when nothing more can go by the recipe's head policy."""
    total = 0
    for index in blocks:
        attention, ffn = shape.blocks[index].attention, shape.blocks[index].ffn
        policies = alternatives(recipe.heads.policy, attention)
        fewest = (p.parameters_left(attention, p.step(attention)) for p in policies.values())
        total += dense_parameters(attention) if attention.fixed else min(fewest)
        total += least_ffn(ffn, recipe.ffn.multiple)
    return total


def least_ffn(shape: ModuleShape, multiple: int) -> int:
    """Parameters of an FFN that loses as many channels as it can."""
    if shape.fixed:
        return dense_parameters(shape)
    each = min(lcm(multiple, shape.step), shape.units_per_expert)
    return shape.parameters(shape.experts * each, 0)


def _removed_by_ratios(measurement: Measurement, recipe: Recipe, blocks: range) -> int:
    total = 0
    for index in blocks:
        block = measurement.shape.blocks[index]
        total += dense_parameters(block.attention)
        total -= attention_after(measurement, recipe, index, recipe.heads.ratio)
        gone = 0 if block.ffn.fixed else removed_channels(recipe.ffn.ratio, block.ffn)
        total += gone * channel_parameters(block.ffn)
    return total


def attention_after(measurement: Measurement, recipe: Recipe, index: int, sparsity: float) -> int:
    """Parameters of block ``index``'s attention when a share of ``sparsity`` of its heads must
    go."""
    plan = plan_heads(measurement, recipe, index, sparsity)
    return attention_parameters(plan, measurement.shape.blocks[index].attention)


def channel_parameters(shape: ModuleShape) -> int:
    """Parameters of one channel of an FFN."""
    return shape.unit_weights + shape.unit_biases
