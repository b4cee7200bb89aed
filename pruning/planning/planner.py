"""From a measurement and a recipe to a plan; numpy only, fast enough for a slider."""

from __future__ import annotations

from dataclasses import replace

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import BlockPlan, Plan
from pruning.artifacts.recipe import Recipe
from pruning.criteria import CRITERIA, unit_scores
from pruning.planning.allocation import ALLOCATIONS, BlockSparsity
from pruning.planning.allocation.budget import check_budget
from pruning.planning.channels import plan_channels
from pruning.planning.checks import block_range, cuttable
from pruning.planning.head_policies import policy_for
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
    """Decide what goes. Raises UsageError when the block range or the marks do not fit the model
    or the budget cannot be met, and NeedsMeasurement when ``measurement`` lacks what
    :func:`needs_gradients` says is needed."""
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
    plan = Plan(whole, plans, recipe.calibration.seq_len)
    check_budget(plan, recipe, measurement.shape, blocks)
    return replace(plan, remarks=remarks(plan, recipe, blocks))


def remarks(plan: Plan, recipe: Recipe, blocks: range) -> tuple[str, ...]:
    """What one would not expect of a plan of ``blocks``, as sentences."""
    asked = (recipe.budget.given and not recipe.budget.spare_heads) or recipe.heads.ratio > 0.0
    cut = [plan.blocks[index] for index in blocks]
    shapes = [plan.shape.blocks[index].attention for index in blocks]
    shape = next((shape for shape in shapes if not shape.fixed), None)
    if not asked or shape is None or any(block.attention.removed for block in cut):
        return ()
    if not any(block.ffn.removed for block in cut):
        return ()
    step = policy_for(recipe.heads.policy, shape).step(shape)
    return (
        f"Only FFN channels go: all heads stay, for a block of {shape.units} heads gives up "
        f"{step} at a time, which is more than what was asked of them.",
    )


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
