"""Choosing units again when recovery has changed the weights (method section 4.2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pruning.artifacts.plan import BY_HAND, SIMILARITY, ModulePlan
from pruning.artifacts.shapes import ModuleShape
from pruning.planning.channels import plan_channels
from pruning.planning.selection import Reason, Reasons, choose_units, of_whole_groups, removal_plan


def rescored(
    module: ModulePlan, shape: ModuleShape, scores: np.ndarray, criterion: str
) -> ModulePlan:
    """``module`` with as many units, chosen again by new ``scores`` [units].

    What similarity or a person chose stays; only units that went by score are chosen again,
    among those that no one marked to keep.
    """
    if not module.removed:
        return module
    rows = zip(module.criteria, module.values, module.partners, module.ranks, strict=True)
    required = {
        unit: Reason(*row)
        for unit, row in zip(module.removed, rows, strict=True)
        if row[0] in (SIMILARITY, BY_HAND)
    }
    if module.kind == "ffn":
        return _channels_again(module, shape, scores, criterion, required)
    again = _heads_again(module, shape, scores, criterion, required)
    plan = removal_plan(module.block, shape, again, module.grouped)
    return replace(plan, ungrouped=module.ungrouped, held=module.held)


def _channels_again(module, shape, scores, criterion: str, required: Reasons) -> ModulePlan:
    count = len(module.removed)
    if not required:
        return plan_channels(module.block, shape, scores, criterion, count / shape.units)
    if module.experts > 1:
        return module
    again = choose_units(np.arange(shape.units), required, scores, criterion, count)
    return removal_plan(module.block, shape, again)


def _heads_again(module, shape, scores, criterion: str, required: Reasons) -> Reasons:
    """As many heads from wherever the plan took them: whole groups, each group, or all heads."""
    per_group, held = shape.units_per_group, frozenset(module.held)
    if module.grouped:
        chosen = choose_units(
            np.arange(shape.groups),
            {unit // per_group: reason for unit, reason in required.items()},
            scores.reshape(shape.groups, per_group).sum(axis=1),
            criterion,
            len(module.removed_groups),
            {unit // per_group for unit in held},
        )
        return of_whole_groups(chosen, per_group)
    parts = shape.groups if per_group > 1 and not module.ungrouped else 1
    size = shape.units // parts
    again: Reasons = {}
    for part in range(parts):
        members = np.arange(part * size, (part + 1) * size)
        count = sum(unit // size == part for unit in module.removed)
        again |= choose_units(members, required, scores, criterion, count, held)
    return again
