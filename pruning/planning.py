"""From a measurement and a recipe to a plan; numpy only, fast enough for a slider."""

from __future__ import annotations

from dataclasses import replace
from math import lcm

import numpy as np

from pruning.allocation import ALLOCATIONS
from pruning.criteria import SCORES, unit_scores
from pruning.errors import UsageError
from pruning.head_plans import from_rows, keep_all, plan_heads, removed_count, rounded, rows_of
from pruning.marks import check_marks
from pruning.measurement import Measurement
from pruning.plan import BY_HAND, SIMILARITY, BlockPlan, ModulePlan, Plan
from pruning.recipe import Recipe
from pruning.shape import ModuleShape


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
    return any(SCORES[name].gradients for name in scores)


def needs_curves(recipe: Recipe) -> bool:
    """Whether a plan by ``recipe`` needs the expected losses."""
    return ALLOCATIONS[recipe.allocation].predicts


def make_plan(measurement: Measurement, recipe: Recipe) -> Plan:
    """Decide what goes. Raises UsageError when the block range or the marks do not fit the model,
    and NeedsMeasurement when ``measurement`` lacks what :func:`needs_gradients` says is needed."""
    whole = measurement.shape
    if recipe.budget.given and recipe.budget.spare_heads:
        measurement = _sparing_heads(measurement)
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
                name, measured.module(kind).statistics, size.module(kind),
                seed=recipe.seed, block=index,
            )
            for kind, name in (("attention", recipe.heads.score), ("ffn", recipe.ffn.score))
        )  # fmt: skip
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


def _sparing_heads(measurement: Measurement) -> Measurement:
    """``measurement`` of a model whose heads cannot go."""
    reason = "the recipe's budget spares the heads."
    blocks = tuple(
        replace(block, attention=replace(block.attention, fixed=reason))
        for block in measurement.shape.blocks
    )
    return replace(measurement, shape=replace(measurement.shape, blocks=blocks))


def plan_channels(
    block: int,
    shape: ModuleShape,
    scores: np.ndarray,
    score_name: str,
    ratio: float,
    multiple: int = 1,
) -> ModulePlan:
    """The ``ratio`` of FFN channels with the lowest ``scores`` [channels]; what stays is rounded
    to the nearest ``multiple`` (never to nothing; nothing goes where that would be all). Every
    expert loses as many of its own, so scores are not compared between experts."""
    size = shape.units_per_expert
    count = 0 if shape.fixed else removed_count(ratio, size)
    if count:
        count = size - rounded(size - count, lcm(multiple, shape.step), size)
    if count == 0:
        return keep_all(block, shape)
    tables = scores.reshape(shape.experts, size)
    places = [_weakest(table, count) for table in tables]
    removed = np.concatenate([place + size * e for e, place in enumerate(places)])
    ranks = np.concatenate(
        [table[place].argsort(kind="stable").argsort() + 1
         for table, place in zip(tables, places, strict=True)]
    )  # fmt: skip
    return replace(
        keep_all(block, shape),
        removed=tuple(removed.tolist()),
        criteria=(score_name,) * len(removed),
        values=tuple(scores[removed].tolist()),
        partners=(-1,) * len(removed),
        ranks=tuple(ranks.tolist()),
    )


def _weakest(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` lowest scores, ascending; of equal scores the first ones.

    A partition instead of a sort: this is what a slider waits for.
    """
    limit = np.partition(scores, count - 1)[count - 1]
    below = np.nonzero(scores < limit)[0]
    equal = np.nonzero(scores == limit)[0][: count - len(below)]
    return np.sort(np.concatenate([below, equal]))


def rescored(
    module: ModulePlan, shape: ModuleShape, scores: np.ndarray, score_name: str
) -> ModulePlan:
    """As many units again, chosen by new ``scores`` [units] (method section 4.2).

    What similarity or a person chose stays; only units that went by score are chosen again,
    among those that no one marked to keep.
    """
    if not module.removed:
        return module
    table = zip(module.criteria, module.values, module.partners, module.ranks, strict=True)
    fixed = {
        unit: row
        for unit, row in zip(module.removed, table, strict=True)
        if row[0] in (SIMILARITY, BY_HAND)
    }
    if module.kind == "ffn":
        if module.experts > 1 and fixed:
            return module
        if not fixed:
            return plan_channels(
                module.block, shape, scores, score_name, len(module.removed) / shape.units
            )
        rows = rows_of(np.arange(shape.units), fixed, scores, score_name, len(module.removed))
        return from_rows(module.block, shape, rows)
    per_group = shape.units_per_group
    held = frozenset(module.held)
    if module.grouped:
        group_scores = scores.reshape(shape.groups, per_group).sum(axis=1)
        found = {unit // per_group: row for unit, row in fixed.items()}
        chosen = rows_of(
            np.arange(shape.groups), found, group_scores, score_name, len(module.removed_groups),
            {unit // per_group for unit in held},
        )  # fmt: skip
        rows = {g * per_group + m: row for g, row in chosen.items() for m in range(per_group)}
    elif per_group > 1 and not module.ungrouped:
        rows = {}
        for group in range(shape.groups):
            members = np.arange(group * per_group, (group + 1) * per_group)
            count = sum(unit // per_group == group for unit in module.removed)
            rows |= rows_of(members, fixed, scores, score_name, count, held)
    else:
        every, count = np.arange(shape.units), len(module.removed)
        rows = rows_of(every, fixed, scores, score_name, count, held)
    again = from_rows(module.block, shape, rows, module.grouped)
    return replace(again, ungrouped=module.ungrouped, held=module.held)
