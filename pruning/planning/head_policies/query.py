"""The same number of query heads from every key/value group."""

from __future__ import annotations

import numpy as np

from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.shapes import ModuleShape
from pruning.planning.head_policies.base import (
    HEAD_POLICIES,
    Chooser,
    HeadPolicy,
    HeadRequest,
    required_units,
    units_to_remove,
)
from pruning.planning.marks import even_limits
from pruning.planning.selection import Reasons, in_turn, removal_plan


class QueryHeads(HeadPolicy):
    """Each group gives up the mean of what was asked, rounded; key/value heads stay.

    Groups give up as many heads as the marks ask of one, and a group marked whole goes whole.
    """

    loss_curve = "query_expected_loss"

    def select(self, request: HeadRequest) -> ModulePlan:
        return self.chooser(request)(request.sparsity)

    def chooser(self, request: HeadRequest) -> Chooser:
        shape, rule, marks = request.shape, request.rule, request.marks
        required = required_units(request.divergence, request.scores, rule, marks)
        per_group = shape.units_per_group
        whole, least, most = even_limits(request.block, shape, marks)
        orders = [
            in_turn(members, required, request.scores, rule.score, marks.keep)
            for members in np.arange(shape.units).reshape(shape.groups, per_group)
        ]

        def choose(sparsity: float) -> ModulePlan:
            count = units_to_remove(required, sparsity, shape.units, marks)
            count -= len(whole) * per_group
            each = int(np.floor(max(count, 0) / (shape.groups - len(whole)) + 0.5))
            each = min(max(each, least), most)
            chosen: Reasons = {}
            for group, order in enumerate(orders):
                chosen |= dict(order[: per_group if group in whole else each])
            return removal_plan(request.block, shape, chosen)

        return choose

    def step(self, shape: ModuleShape) -> int:
        return shape.groups

    def groups_left(self, shape: ModuleShape, keep: int) -> int:
        return shape.groups

    def note(self, shape: ModuleShape) -> str:
        return (
            f"The same number goes from each of the {shape.groups} key/value groups, so a block's "
            f"count is rounded to a multiple of {shape.groups}."
        )


HEAD_POLICIES.add(
    "query",
    QueryHeads(),
    title="Same number of query heads from every group",
    summary="Every key/value group gives up the same number of query heads; all groups stay.",
    source="Headroom",
    cost="closed form",
    place=10,
)
