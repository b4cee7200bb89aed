"""Which heads go: similarity first, then scores, in shapes that a kernel can run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pruning.criteria.similarity import candidates, group_divergence, weaker_candidates
from pruning.measurement import BlockMeasurement
from pruning.plan import SIMILARITY, ModulePlan
from pruning.shape import ModuleShape

if TYPE_CHECKING:
    from pruning.recipe import HeadRule


def keep_all(block: int, shape: ModuleShape) -> ModulePlan:
    """A module that loses nothing."""
    return ModulePlan(block, shape.kind, shape.units, shape.groups, False, (), (), (), (), ())


def removed_count(ratio: float, units: int) -> int:
    """Units that ``ratio`` takes out of ``units``: rounded, and at least one stays."""
    return min(int(np.floor(ratio * units + 0.5)), units - 1)


def plan_heads(
    block: int,
    shape: ModuleShape,
    measured: BlockMeasurement,
    scores: np.ndarray,
    rule: HeadRule,
    ratio: float,
    policy: str | None = None,
) -> ModulePlan:
    """Similarity at τ first, then ``scores`` [heads] for what ``ratio`` still asks.

    Grouped queries, by ``policy`` (None: the rule's): ``kv_group`` decides over whole groups;
    ``query`` takes the same number of heads from every group (the mean of what was asked,
    rounded); ``ungroup`` gives every head its own key/value head and takes any, where that
    still saves parameters, else acts as ``query``; ``auto`` takes of these three the one that
    loses the least score and saves at least ``ratio`` of the module's parameters. A single group
    cannot go whole, and not every family can be ungrouped; those act as ``query`` as well. A
    module that is ``fixed`` keeps everything.
    """
    policy = policy or rule.policy
    if shape.fixed:
        return keep_all(block, shape)
    if shape.units_per_group == 1:
        return _plan_free(block, shape, measured, scores, rule, ratio)
    if policy == "auto":
        return _plan_auto(block, shape, measured, scores, rule, ratio)
    return _POLICIES[policy](block, shape, measured, scores, rule, ratio)


def attention_parameters(plan: ModulePlan, shape: ModuleShape) -> int:
    """Parameters that the attention module has after ``plan``."""
    return shape.parameters(len(plan.kept), len(plan.kept_groups))


def _plan_free(block, shape, measured, scores, rule, ratio) -> ModulePlan:
    found = _similar(measured.divergence, scores, rule)
    wanted = max(len(found), removed_count(ratio, shape.units))
    rows = rows_of(np.arange(shape.units), found, scores, rule.score, wanted)
    return from_rows(block, shape, rows)


def _plan_query(block, shape, measured, scores, rule, ratio) -> ModulePlan:
    found = _similar(measured.divergence, scores, rule)
    wanted = max(len(found), removed_count(ratio, shape.units))
    per_group = shape.units_per_group
    each = min(int(np.floor(wanted / shape.groups + 0.5)), per_group - 1)
    rows: dict = {}
    for group in range(shape.groups):
        members = np.arange(group * per_group, (group + 1) * per_group)
        rows |= rows_of(members, found, scores, rule.score, each)
    return from_rows(block, shape, rows)


def _plan_groups(block, shape, measured, scores, rule, ratio) -> ModulePlan:
    if shape.groups == 1:
        return _plan_query(block, shape, measured, scores, rule, ratio)
    per_group = shape.units_per_group
    group_scores = scores.reshape(shape.groups, per_group).sum(axis=1)
    between = group_divergence(measured.divergence, per_group)
    found = _similar(between, group_scores, rule)
    wanted = max(len(found), removed_count(ratio, shape.groups))
    group_rows = rows_of(np.arange(shape.groups), found, group_scores, rule.score, wanted)
    rows = {
        group * per_group + member: reason
        for group, reason in group_rows.items()
        for member in range(per_group)
    }
    return from_rows(block, shape, rows, grouped=True)


def _plan_ungrouped(block, shape, measured, scores, rule, ratio) -> ModulePlan:
    free = _plan_free(block, shape, measured, scores, rule, ratio)
    plan = replace(free, ungrouped=True)
    whole = shape.parameters(shape.units, shape.groups)
    if shape.ungroups and free.removed and attention_parameters(plan, shape) < whole:
        return plan
    return _plan_query(block, shape, measured, scores, rule, ratio)


_POLICIES = {"query": _plan_query, "kv_group": _plan_groups, "ungroup": _plan_ungrouped}


def _plan_auto(block, shape, measured, scores, rule, ratio) -> ModulePlan:
    """Of all policies and counts, the least score lost among those that save enough."""
    whole = shape.parameters(shape.units, shape.groups)
    plans = [
        plan(block, shape, measured, scores, rule, count / shape.units)
        for plan in _POLICIES.values()
        for count in range(shape.units)
    ]
    total = max(float(scores.sum()), np.finfo(np.float64).tiny)

    def price(plan: ModulePlan) -> tuple[float, float]:
        lost = float(scores[list(plan.removed)].sum()) / total
        return lost, float(attention_parameters(plan, shape))

    enough = [p for p in plans if attention_parameters(p, shape) <= (1.0 - ratio) * whole]
    # no form is small enough: the smallest there is
    least = min(attention_parameters(plan, shape) for plan in plans)
    return min(enough or [p for p in plans if attention_parameters(p, shape) == least], key=price)


def _similar(divergence: np.ndarray, scores: np.ndarray, rule: HeadRule) -> dict:
    if rule.threshold is None:
        return {}
    if rule.drop == "weaker":
        found = weaker_candidates(divergence, rule.threshold, scores)
    else:
        found = candidates(divergence, rule.threshold)
    return {c.unit: (SIMILARITY, c.divergence, c.partner, 0) for c in found}


def rows_of(members: np.ndarray, found: dict, scores: np.ndarray, name: str, wanted: int) -> dict:
    """Reasons by unit for ``wanted`` of ``members``: similar ones first, then the weakest."""
    order = members[np.argsort(scores[members], kind="stable")].tolist()
    rank = {unit: place for place, unit in enumerate(order, start=1)}
    chosen = [unit for unit in order if unit in found][:wanted]
    chosen += [unit for unit in order if unit not in found][: wanted - len(chosen)]
    return {unit: found.get(unit, (name, float(scores[unit]), -1, rank[unit])) for unit in chosen}


def from_rows(block: int, shape: ModuleShape, rows: dict, grouped: bool = False) -> ModulePlan:
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
