"""Choosing units of a module, and writing down why each of them goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pruning.artifacts.plan import BY_HAND, SIMILARITY, ModulePlan
from pruning.artifacts.shapes import ModuleShape


class Reason(NamedTuple):
    """Why a unit goes, as :class:`~pruning.artifacts.plan.ModulePlan` keeps it: the criterion, its
    value, the unit that stays in its place (-1: none) and its rank among the weakest (0: none)."""

    criterion: str
    value: float
    partner: int = -1
    rank: int = 0


Reasons = dict[int, Reason]
"""Reasons by unit (or key/value group) that goes."""


def keep_all(block: int, shape: ModuleShape) -> ModulePlan:
    """A module that loses nothing."""
    nothing = ((), (), (), (), ())
    return ModulePlan(
        block, shape.kind, shape.units, shape.groups, False, *nothing, experts=shape.experts
    )


def removed_count(sparsity: float, units: int) -> int:
    """Units that ``sparsity`` takes out of ``units``: rounded, and at least one stays."""
    return min(int(np.floor(sparsity * units + 0.5)), units - 1)


def removed_channels(sparsity: float, shape: ModuleShape) -> int:
    """The same for an FFN, each of whose experts loses as many."""
    size = shape.units_per_expert
    count = removed_count(sparsity, size)
    return shape.experts * (size - rounded(size - count, shape.step, size))


def rounded(keep: int, multiple: int, most: int) -> int:
    """``keep`` as the nearest multiple, at least one of it, or ``most`` if that is less."""
    return min(max(multiple, multiple * int(keep / multiple + 0.5)), most)


def choose_units(
    members: np.ndarray,
    required: Mapping[int, Reason],
    scores: np.ndarray,
    criterion: str,
    count: int,
    keep: Collection[int] = (),
) -> Reasons:
    """Reasons for the first ``count`` of :func:`in_turn`."""
    return dict(in_turn(members, required, scores, criterion, keep)[:count])


def in_turn(
    members: np.ndarray,
    required: Mapping[int, Reason],
    scores: np.ndarray,
    criterion: str,
    keep: Collection[int] = (),
) -> list[tuple[int, Reason]]:
    """``members`` in the order in which they go, and why: those ``required`` by a mark first, then
    those by similarity, then the weakest by ``scores`` [units]; none of ``keep``."""
    order = members[np.argsort(scores[members], kind="stable")].tolist()
    rank = {unit: place for place, unit in enumerate(order, start=1)}
    turn = {BY_HAND: 0, SIMILARITY: 1}
    free = [unit for unit in order if unit not in keep]
    free.sort(key=lambda unit: turn[required[unit].criterion] if unit in required else 2)
    return [
        (unit, required.get(unit) or Reason(criterion, float(scores[unit]), -1, rank[unit]))
        for unit in free
    ]


def of_whole_groups(chosen: Mapping[int, Reason], per_group: int) -> Reasons:
    """The reasons of key/value groups as those of their ``per_group`` heads each."""
    return {
        group * per_group + member: reason
        for group, reason in chosen.items()
        for member in range(per_group)
    }


def removal_plan(
    block: int, shape: ModuleShape, reasons: Mapping[int, Reason], grouped: bool = False
) -> ModulePlan:
    """The plan that removes the units of ``reasons``; a key/value head goes when all of its query
    heads do."""
    removed = sorted(reasons)
    per_group = shape.units_per_group
    counts = np.bincount([unit // per_group for unit in removed], minlength=shape.groups)
    columns = list(zip(*(reasons[unit] for unit in removed), strict=True)) or [()] * 4
    criteria, values, partners, ranks = columns
    return replace(
        keep_all(block, shape),
        grouped=grouped,
        removed=tuple(removed),
        criteria=criteria,
        values=values,
        partners=partners,
        ranks=ranks,
        removed_groups=tuple(np.nonzero(counts == per_group)[0].tolist()) if shape.groups else (),
    )


def dense_parameters(shape: ModuleShape) -> int:
    """Parameters of the module before any cut."""
    return shape.parameters(shape.units, shape.groups)


def attention_parameters(plan: ModulePlan, shape: ModuleShape) -> int:
    """Parameters that the attention module has after ``plan``."""
    return shape.parameters(len(plan.kept), len(plan.kept_groups))
