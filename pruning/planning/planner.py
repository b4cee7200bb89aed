"""From a measurement and a recipe to a plan; numpy only, fast enough for a slider."""

from __future__ import annotations

from dataclasses import replace

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import BlockPlan, Plan
from pruning.artifacts.recipe import Recipe
from pruning.criteria import CRITERIA, unit_scores
from pruning.planning.allocation import ALLOCATIONS
from pruning.planning.channels import plan_channels
from pruning.planning.heads import keep_all, plan_heads
from pruning.planning.marks import check_marks
from pruning.utils.errors import UsageError


def block_range(recipe: Recipe, count: int) -> range:
    """The blocks that may be cut; raises UsageError when the range leaves the model."""
    end = count if recipe.blocks.end is None else recipe.blocks.end
    if end > count or recipe.blocks.start >= end:
        raise UsageError(
            f"The block range [{recipe.blocks.start}, {end}) does not fit a model of {count} "
            f"blocks; choose 0 <= start < end <= {count}."
        )
    return range(recipe.blocks.start, end)


def needs_gradients(recipe: Recipe) -> bool:
    """Whether a plan by ``recipe`` needs statistics of the gradient pass."""
    scores = (recipe.heads.score, recipe.ffn.score)
    return any(CRITERIA[name].gradients for name in scores)


def needs_loss_curves(recipe: Recipe) -> bool:
    """Whether a plan by ``recipe`` needs the expected losses."""
    return ALLOCATIONS[recipe.allocation].needs_loss_curves


def make_plan(measurement: Measurement, recipe: Recipe) -> Plan:
    """Decide what goes. Raises UsageError when the block range or the marks do not fit the model,
    and NeedsMeasurement when ``measurement`` lacks what :func:`needs_gradients` says is needed."""
    whole = measurement.shape
    if recipe.budget.given and recipe.budget.spare_heads:
        measurement = ffn_only(measurement)
    shape = measurement.shape
    blocks = block_range(recipe, len(shape.blocks))
    check_marks(recipe, shape, blocks)
    ratios = dict(
        zip(
            blocks,
            ALLOCATIONS[recipe.allocation].allocate(measurement, recipe, blocks),
            strict=True,
        )
    )
    plans = []
    for index, (size, measured) in enumerate(zip(shape.blocks, measurement.blocks, strict=True)):
        if index not in ratios:
            plans.append(BlockPlan(keep_all(index, size.attention), keep_all(index, size.ffn)))
            continue
        ratio = ratios[index]
        heads, channels = (
            unit_scores(
                name,
                measured.module(kind).statistics,
                size.module(kind),
                seed=recipe.seed,
                block=index,
            )
            for kind, name in (("attention", recipe.heads.score), ("ffn", recipe.ffn.score))
        )
        plans.append(
            BlockPlan(
                plan_heads(
                    index,
                    size.attention,
                    measured,
                    heads,
                    recipe.heads,
                    ratio.heads,
                    ratio.policy,
                    recipe.marks.get(index),
                ),
                plan_channels(
                    index, size.ffn, channels, recipe.ffn.score, ratio.ffn, recipe.ffn.multiple
                ),
            )
        )
    return Plan(whole, tuple(plans), recipe.calibration.seq_len)


def ffn_only(measurement: Measurement) -> Measurement:
    """``measurement`` of a model whose heads cannot go."""
    reason = "the recipe's budget spares the heads."
    blocks = tuple(
        replace(block, attention=replace(block.attention, fixed=reason))
        for block in measurement.shape.blocks
    )
    return replace(measurement, shape=replace(measurement.shape, blocks=blocks))
