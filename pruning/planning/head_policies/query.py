"""The same number of query heads from every key/value group."""

from __future__ import annotations

import numpy as np

from pruning.planning.head_policies.base import (
    HEAD_POLICIES,
    HeadPolicy,
    required_units,
    units_to_remove,
)
from pruning.planning.marks import even_limits
from pruning.planning.selection import Reasons, choose_units, removal_plan


class QueryHeads(HeadPolicy):
    """Each group gives up the mean of what was asked, rounded; key/value heads stay.

    Groups give up as many heads as the marks ask of one, and a group marked whole goes whole.
    """

    loss_curve = "query_expected_loss"

    def select(self, request):
        shape, rule, marks = request.shape, request.rule, request.marks
        required = required_units(request.divergence, request.scores, rule, marks)
        per_group = shape.units_per_group
        whole, least, most = even_limits(request.block, shape, marks)
        count = units_to_remove(required, request.sparsity, shape.units, marks)
        count -= len(whole) * per_group
        each = int(np.floor(max(count, 0) / (shape.groups - len(whole)) + 0.5))
        each = min(max(each, least), most)
        chosen: Reasons = {}
        for group in range(shape.groups):
            members = np.arange(group * per_group, (group + 1) * per_group)
            lost = per_group if group in whole else each
            chosen |= choose_units(members, required, request.scores, rule.score, lost, marks.keep)
        return removal_plan(request.block, shape, chosen)

    def step(self, shape):
        return shape.groups

    def groups_left(self, shape, keep):
        return shape.groups

    def note(self, shape):
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
