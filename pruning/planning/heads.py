"""Which heads go: marked ones, then similar ones, then by score, in shapes a kernel can run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pruning.artifacts.measurement import BlockMeasurement
from pruning.artifacts.plan import BY_HAND, SIMILARITY, ModulePlan
from pruning.artifacts.shapes import ModuleShape
from pruning.planning.marks import HeadMarks, even_limits, marked_groups
from pruning.planning.similarity import candidates, group_divergence, weaker_candidates
from pruning.utils.errors import UsageError

if TYPE_CHECKING:
    from pruning.artifacts.recipe import HeadRule, Marks


def keep_all(block: int, shape: ModuleShape) -> ModulePlan:
    """A module that loses nothing."""
    nothing = ((), (), (), (), ())
    return ModulePlan(
        block, shape.kind, shape.units, shape.groups, False, *nothing, experts=shape.experts
    )


def removed_count(ratio: float, units: int) -> int:
    """Units that ``ratio`` takes out of ``units``: rounded, and at least one stays."""
    return min(int(np.floor(ratio * units + 0.5)), units - 1)


def removed_channels(ratio: float, shape: ModuleShape) -> int:
    """The same for an FFN, each of whose experts loses as many."""
    size = shape.units_per_expert
    count = removed_count(ratio, size)
    return shape.experts * (size - rounded(size - count, shape.step, size))


def rounded(kept: int, multiple: int, most: int) -> int:
    """``kept`` as the nearest multiple, at least one of it, or ``most`` if that is less."""
    return min(max(multiple, multiple * int(kept / multiple + 0.5)), most)


def plan_heads(
    block: int,
    shape: ModuleShape,
    measured: BlockMeasurement,
    scores: np.ndarray,
    rule: HeadRule,
    ratio: float,
    policy: str | None = None,
    marks: Marks | None = None,
) -> ModulePlan:
    """Marked heads first, then similarity at τ, then ``scores`` [heads] for what ``ratio`` still
    asks; heads that ``marks`` keep never go, even if the ratio is then not reached.

    Grouped queries, by ``policy`` (None: the rule's): ``kv_group`` decides over whole groups;
    ``query`` takes the same number of heads from every group (the mean of what was asked,
    rounded); ``ungroup`` gives every head its own key/value head and takes any, where that
    still saves parameters, else acts as ``query``; ``auto`` takes of these three the one that
    loses the least score and saves at least ``ratio`` of the module's parameters. A single group
    cannot go whole, and not every family can be ungrouped; those act as ``query`` as well. A
    module that is ``fixed`` keeps everything.

    A mark takes its key/value group along under ``kv_group``; under ``query`` the other groups
    give up as many heads as the marks ask of one, and a group marked whole goes whole. Raises
    UsageError when the policy cannot honour the marks.
    """
    policy = policy or rule.policy
    if shape.fixed:
        return keep_all(block, shape)
    given = HeadMarks(marks.keep, marks.drop) if marks else HeadMarks()
    if shape.units_per_group == 1:
        way = _plan_free
    else:
        way = _plan_auto if policy == "auto" else _POLICIES[policy]
    plan = way(block, shape, measured, scores, rule, ratio, given)
    return replace(plan, held=given.keep)


def attention_parameters(plan: ModulePlan, shape: ModuleShape) -> int:
    """Parameters that the attention module has after ``plan``."""
    return shape.parameters(len(plan.kept), len(plan.kept_groups))


def _plan_free(block, shape, measured, scores, rule, ratio, marks) -> ModulePlan:
    found = _found(measured.divergence, scores, rule, marks)
    wanted = _wanted(found, ratio, shape.units, marks)
    rows = rows_of(np.arange(shape.units), found, scores, rule.score, wanted, marks.keep)
    return from_rows(block, shape, rows)


def _plan_query(block, shape, measured, scores, rule, ratio, marks) -> ModulePlan:
    found = _found(measured.divergence, scores, rule, marks)
    per_group = shape.units_per_group
    whole, least, most = even_limits(block, shape, marks)
    wanted = _wanted(found, ratio, shape.units, marks) - len(whole) * per_group
    each = int(np.floor(max(wanted, 0) / (shape.groups - len(whole)) + 0.5))
    each = min(max(each, least), most)
    rows: dict = {}
    for group in range(shape.groups):
        members = np.arange(group * per_group, (group + 1) * per_group)
        count = per_group if group in whole else each
        rows |= rows_of(members, found, scores, rule.score, count, marks.keep)
    return from_rows(block, shape, rows)


def _plan_groups(block, shape, measured, scores, rule, ratio, marks) -> ModulePlan:
    if shape.groups == 1:
        return _plan_query(block, shape, measured, scores, rule, ratio, marks)
    marks = marked_groups(block, shape, marks)
    per_group = shape.units_per_group
    group_scores = scores.reshape(shape.groups, per_group).sum(axis=1)
    between = group_divergence(measured.divergence, per_group)
    found = _found(between, group_scores, rule, marks)
    wanted = _wanted(found, ratio, shape.groups, marks)
    every = np.arange(shape.groups)
    group_rows = rows_of(every, found, group_scores, rule.score, wanted, marks.keep)
    rows = {
        group * per_group + member: reason
        for group, reason in group_rows.items()
        for member in range(per_group)
    }
    return from_rows(block, shape, rows, grouped=True)


def _plan_ungrouped(block, shape, measured, scores, rule, ratio, marks) -> ModulePlan:
    plan = _plan_own(block, shape, measured, scores, rule, ratio, marks)
    whole = shape.parameters(shape.units, shape.groups)
    if shape.ungroups and plan.removed and attention_parameters(plan, shape) < whole:
        return plan
    return _plan_query(block, shape, measured, scores, rule, ratio, marks)


def _plan_own(block, shape, measured, scores, rule, ratio, marks) -> ModulePlan:
    """Every head with a key/value head of its own, whether that saves or not."""
    free = _plan_free(block, shape, measured, scores, rule, ratio, marks)
    return replace(free, ungrouped=True)


_POLICIES = {"query": _plan_query, "kv_group": _plan_groups, "ungroup": _plan_ungrouped}


def _plan_auto(block, shape, measured, scores, rule, ratio, marks) -> ModulePlan:
    """Of all policies and counts, the least score lost among those that save enough.

    Under one policy parameters fall and lost score grows with the count, so the least count that
    saves enough, found by bisection, stands for the policy.
    """
    whole = shape.parameters(shape.units, shape.groups)
    limit = (1.0 - ratio) * whole
    ways = [_plan_query, _plan_groups, *([_plan_own] if shape.ungroups else [])]
    plans: list[ModulePlan] = []
    refused: UsageError | None = None
    for way in ways:

        def plan(count: int, way=way) -> ModulePlan:
            return way(block, shape, measured, scores, rule, count / shape.units, marks)

        def saves(count: int, plan=plan) -> bool:
            return attention_parameters(plan(count), shape) <= limit

        try:
            count = bisect_left(range(shape.units), True, key=saves)
            found = plan(min(count, shape.units - 1))
        except UsageError as error:  # this policy cannot honour the marks; another may
            refused = refused or error
            continue
        # with few heads gone, key/value heads of their own cost more than they save
        if not found.ungrouped or attention_parameters(found, shape) < whole:
            plans.append(found)
    if not plans:
        raise refused
    sizes = [attention_parameters(plan, shape) for plan in plans]
    # where no form is small enough: the smallest there is
    limit = max(limit, min(sizes))
    lost = [float(scores[list(plan.removed)].sum()) for plan in plans]
    prices = zip(lost, sizes, range(len(plans)), strict=True)
    return plans[min(price for price in prices if price[1] <= limit)[2]]


def _found(divergence: np.ndarray, scores: np.ndarray, rule: HeadRule, marks: HeadMarks) -> dict:
    """Reasons by unit of what a mark or similarity takes."""
    by_hand = dict.fromkeys(marks.drop, (BY_HAND, 0.0, -1, 0))
    if rule.threshold is None:
        return by_hand
    if marks.drop:  # what goes anyway speaks for no one
        divergence, gone = divergence.copy(), list(marks.drop)
        divergence[gone] = divergence[:, gone] = np.inf
    if rule.drop == "weaker":
        found = weaker_candidates(divergence, rule.threshold, scores, marks.keep)
    else:
        found = candidates(divergence, rule.threshold, marks.keep)
    return by_hand | {c.unit: (SIMILARITY, c.divergence, c.partner, 0) for c in found}


def _wanted(found: dict, ratio: float, units: int, marks: HeadMarks) -> int:
    """Units that go: what was found and what ``ratio`` asks, without those that must stay."""
    return min(max(len(found), removed_count(ratio, units)), units - max(len(marks.keep), 1))


def rows_of(
    members: np.ndarray,
    found: dict,
    scores: np.ndarray,
    name: str,
    wanted: int,
    keep: Collection[int] = (),
) -> dict:
    """Reasons by unit for ``wanted`` of ``members``: marked ones first, then similar ones, then
    the weakest; none of ``keep``."""
    order = members[np.argsort(scores[members], kind="stable")].tolist()
    rank = {unit: place for place, unit in enumerate(order, start=1)}
    turn = {BY_HAND: 0, SIMILARITY: 1}
    free = [unit for unit in order if unit not in keep]
    chosen = sorted(free, key=lambda unit: turn[found[unit][0]] if unit in found else 2)[:wanted]
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
