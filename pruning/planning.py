"""From a measurement and a recipe to a plan; numpy only, fast enough for a slider."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pruning.allocation import ALLOCATIONS
from pruning.criteria import SCORES, unit_scores
from pruning.criteria.similarity import candidates, group_divergence, weaker_candidates
from pruning.errors import UsageError
from pruning.measurement import BlockMeasurement, Measurement
from pruning.plan import BY_HAND, SIMILARITY, BlockPlan, ModulePlan, Plan
from pruning.recipe import HeadRule, Recipe
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


def make_plan(measurement: Measurement, recipe: Recipe) -> Plan:
    """Decide what goes. Raises UsageError when the block range does not fit the model."""
    shape = measurement.shape
    blocks = block_range(recipe, len(shape.blocks))
    ratios = dict(
        zip(blocks, ALLOCATIONS[recipe.allocation](measurement, recipe, blocks), strict=True)
    )
    head_score, ffn_score = SCORES[recipe.heads.score], SCORES[recipe.ffn.score]
    plans = []
    for index, (size, measured) in enumerate(zip(shape.blocks, measurement.blocks, strict=True)):
        if index not in ratios:
            plans.append(BlockPlan(keep_all(index, size.attention), keep_all(index, size.ffn)))
            continue
        ratio = ratios[index]
        heads = unit_scores(head_score, measured.attention.statistics, size.attention)
        channels = unit_scores(ffn_score, measured.ffn.statistics, size.ffn)
        plans.append(
            BlockPlan(
                plan_heads(index, size.attention, measured, heads, recipe.heads, ratio.heads),
                plan_channels(index, size.ffn, channels, recipe.ffn.score, ratio.ffn),
            )
        )
    return Plan(shape, tuple(plans), recipe.calibration.seq_len)


def keep_all(block: int, shape: ModuleShape) -> ModulePlan:
    """A module that loses nothing."""
    return ModulePlan(block, shape.kind, shape.units, shape.groups, False, (), (), (), (), ())


def removed_count(ratio: float, units: int) -> int:
    """Units that ``ratio`` takes out of ``units``: rounded, and at least one stays."""
    return min(int(np.floor(ratio * units + 0.5)), units - 1)


def plan_channels(
    block: int, shape: ModuleShape, scores: np.ndarray, score_name: str, ratio: float
) -> ModulePlan:
    """The ``ratio`` of FFN channels with the lowest ``scores`` [channels]."""
    count = 0 if shape.fixed else removed_count(ratio, shape.units)
    if count == 0:
        return keep_all(block, shape)
    removed = _weakest(scores, count)
    ranks = np.empty(count, dtype=np.int64)
    ranks[np.argsort(scores[removed], kind="stable")] = np.arange(1, count + 1)
    return replace(
        keep_all(block, shape),
        removed=tuple(removed.tolist()),
        criteria=(score_name,) * count,
        values=tuple(scores[removed].tolist()),
        partners=(-1,) * count,
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


def plan_heads(
    block: int,
    shape: ModuleShape,
    measured: BlockMeasurement,
    scores: np.ndarray,
    rule: HeadRule,
    ratio: float,
) -> ModulePlan:
    """Similarity at τ first, then ``scores`` [heads] for what ``ratio`` still asks.

    Grouped queries: policy ``kv_group`` decides over whole groups; ``query`` takes the same
    number of heads from every group (the mean of what was asked, rounded). A single group cannot
    go whole, so multi-query attention gives up query heads under either policy. A module that
    is ``fixed`` keeps everything.
    """
    if shape.fixed:
        return keep_all(block, shape)
    if shape.units_per_group > 1 and shape.groups > 1 and rule.policy == "kv_group":
        return _plan_groups(block, shape, measured, scores, rule, ratio)
    found = _similar(measured.divergence, scores, rule)
    wanted = max(len(found), removed_count(ratio, shape.units))
    if shape.units_per_group > 1:
        rows = _even_rows(shape, found, scores, rule, wanted)
    else:
        rows = _rows(np.arange(shape.units), found, scores, rule.score, wanted)
    return _from_rows(block, shape, rows, grouped=False)


def _similar(divergence: np.ndarray, scores: np.ndarray, rule: HeadRule) -> dict:
    if rule.threshold is None:
        return {}
    if rule.drop == "weaker":
        found = weaker_candidates(divergence, rule.threshold, scores)
    else:
        found = candidates(divergence, rule.threshold)
    return {c.unit: (SIMILARITY, c.divergence, c.partner, 0) for c in found}


def _rows(members: np.ndarray, found: dict, scores: np.ndarray, name: str, wanted: int) -> dict:
    """Reasons by unit for ``wanted`` of ``members``: similar ones first, then the weakest."""
    order = members[np.argsort(scores[members], kind="stable")].tolist()
    rank = {unit: place for place, unit in enumerate(order, start=1)}
    chosen = [unit for unit in order if unit in found][:wanted]
    chosen += [unit for unit in order if unit not in found][: wanted - len(chosen)]
    return {unit: found.get(unit, (name, float(scores[unit]), -1, rank[unit])) for unit in chosen}


def _even_rows(
    shape: ModuleShape, found: dict, scores: np.ndarray, rule: HeadRule, wanted: int
) -> dict:
    per_group = shape.units_per_group
    each = min(int(np.floor(wanted / shape.groups + 0.5)), per_group - 1)
    rows: dict = {}
    for group in range(shape.groups):
        members = np.arange(group * per_group, (group + 1) * per_group)
        rows |= _rows(members, found, scores, rule.score, each)
    return rows


def _plan_groups(
    block: int,
    shape: ModuleShape,
    measured: BlockMeasurement,
    scores: np.ndarray,
    rule: HeadRule,
    ratio: float,
) -> ModulePlan:
    per_group = shape.units_per_group
    group_scores = scores.reshape(shape.groups, per_group).sum(axis=1)
    between = group_divergence(measured.divergence, per_group)
    found = _similar(between, group_scores, rule)
    wanted = max(len(found), removed_count(ratio, shape.groups))
    group_rows = _rows(np.arange(shape.groups), found, group_scores, rule.score, wanted)
    rows = {
        group * per_group + member: reason
        for group, reason in group_rows.items()
        for member in range(per_group)
    }
    return _from_rows(block, shape, rows, grouped=True)


def _from_rows(block: int, shape: ModuleShape, rows: dict, grouped: bool = False) -> ModulePlan:
    """Assemble a plan; a key/value head goes when all of its query heads do."""
    removed = sorted(rows)
    per_group = shape.units_per_group
    counts = np.bincount([unit // per_group for unit in removed], minlength=shape.groups)
    columns = list(zip(*(rows[unit] for unit in removed), strict=True)) or [(), (), (), ()]
    criteria, values, partners, ranks = columns
    return replace(
        keep_all(block, shape),
        grouped=grouped,
        removed=tuple(removed),
        criteria=tuple(criteria),
        values=tuple(values),
        partners=tuple(partners),
        ranks=tuple(ranks),
        removed_groups=tuple(np.nonzero(counts == per_group)[0].tolist()) if shape.groups else (),
    )


def rescored(
    module: ModulePlan, shape: ModuleShape, scores: np.ndarray, score_name: str
) -> ModulePlan:
    """As many units again, chosen by new ``scores`` [units] (method section 4.2).

    What similarity or a person chose stays; only units that went by score are chosen again.
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
        if not fixed:
            return plan_channels(
                module.block, shape, scores, score_name, len(module.removed) / shape.units
            )
        rows = _rows(np.arange(shape.units), fixed, scores, score_name, len(module.removed))
        return _from_rows(module.block, shape, rows)
    per_group = shape.units_per_group
    if module.grouped:
        group_scores = scores.reshape(shape.groups, per_group).sum(axis=1)
        found = {unit // per_group: row for unit, row in fixed.items()}
        chosen = _rows(
            np.arange(shape.groups), found, group_scores, score_name, len(module.removed_groups)
        )
        rows = {g * per_group + m: row for g, row in chosen.items() for m in range(per_group)}
    elif per_group > 1:
        rows = {}
        for group in range(shape.groups):
            members = np.arange(group * per_group, (group + 1) * per_group)
            count = sum(unit // per_group == group for unit in module.removed)
            rows |= _rows(members, fixed, scores, score_name, count)
    else:
        rows = _rows(np.arange(shape.units), fixed, scores, score_name, len(module.removed))
    return _from_rows(module.block, shape, rows, module.grouped)
