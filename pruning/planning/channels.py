"""Which FFN channels go, and choosing units again with updated scores."""

from __future__ import annotations

from dataclasses import replace
from math import lcm

import numpy as np

from pruning.artifacts.plan import BY_HAND, SIMILARITY, ModulePlan
from pruning.artifacts.shapes import ModuleShape
from pruning.planning.heads import from_rows, keep_all, removed_count, rounded, rows_of


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
        [
            table[place].argsort(kind="stable").argsort() + 1
            for table, place in zip(tables, places, strict=True)
        ]
    )
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
            np.arange(shape.groups),
            found,
            group_scores,
            score_name,
            len(module.removed_groups),
            {unit // per_group for unit in held},
        )
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
