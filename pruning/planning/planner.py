"""From a measurement and a recipe to a plan; numpy only, fast enough for a slider."""

from __future__ import annotations

from dataclasses import replace

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import BlockPlan, Plan
from pruning.artifacts.recipe import Recipe
from pruning.criteria import CRITERIA, unit_scores
from pruning.planning.allocation import ALLOCATIONS, BlockSparsity
from pruning.planning.channels import plan_channels
from pruning.planning.checks import block_range, cuttable
from pruning.planning.heads import plan_heads
from pruning.planning.marks import check_marks
from pruning.planning.selection import keep_all


def needs_gradients(recipe: Recipe) -> bool:
    """Whether a plan by ``recipe`` needs statistics of the gradient pass."""
    scores = (recipe.heads.score, recipe.ffn.score)
    return any(CRITERIA[name].gradients for name in scores)


def needs_loss_curves(recipe: Recipe) -> bool:
    """Whether a plan by ``recipe`` needs loss curves."""
    return ALLOCATIONS[recipe.allocation].needs_loss_curves


def make_plan(measurement: Measurement, recipe: Recipe) -> Plan:
    """Decide what goes. Raises UsageError when the block range or the marks do not fit the model,
    and NeedsMeasurement when ``measurement`` lacks what :func:`needs_gradients` says is needed."""
    whole = measurement.shape
    measurement = replace(measurement, shape=cuttable(whole, recipe))
    blocks = block_range(recipe, len(whole.blocks))
    check_marks(recipe, measurement.shape, blocks)
    allocated = ALLOCATIONS[recipe.allocation].allocate(measurement, recipe, blocks)
    sparsity = dict(zip(blocks, allocated, strict=True))
    plans = tuple(
        plan_block(measurement, recipe, index, sparsity[index])
        if index in sparsity
        else BlockPlan(keep_all(index, size.attention), keep_all(index, size.ffn))
        for index, size in enumerate(measurement.shape.blocks)
    )
    return Plan(whole, plans, recipe.calibration.seq_len)


def plan_block(
    measurement: Measurement, recipe: Recipe, index: int, sparsity: BlockSparsity
) -> BlockPlan:
    """What one block loses when it must lose ``sparsity``."""
    shape, measured = measurement.shape.blocks[index].ffn, measurement.blocks[index].ffn
    heads = plan_heads(measurement, recipe, index, sparsity.heads, sparsity.policy)
    scores = unit_scores(
        recipe.ffn.score, measured.statistics, shape, seed=recipe.seed, block=index
    )
    channels = plan_channels(
        index, shape, scores, recipe.ffn.score, sparsity.ffn, recipe.ffn.multiple
    )
    return BlockPlan(heads, channels)
