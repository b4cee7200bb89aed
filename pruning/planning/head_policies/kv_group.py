"""Whole key/value groups, with all of their query heads."""

from __future__ import annotations

import numpy as np

from pruning.planning.head_policies.base import (
    HEAD_POLICIES,
    HeadPolicy,
    required_units,
    units_to_remove,
)
from pruning.planning.marks import marked_groups
from pruning.planning.selection import choose_units, of_whole_groups, removal_plan
from pruning.planning.similarity import group_divergence


class WholeGroups(HeadPolicy):
    """Groups are compared and scored as wholes; a mark takes its group along. A single group
    cannot go whole."""

    loss_curve = "kv_group_expected_loss"

    def select(self, request):
        block, shape, rule = request.block, request.shape, request.rule
        per_group = shape.units_per_group
        marks = marked_groups(block, shape, request.marks)
        scores = request.scores.reshape(shape.groups, per_group).sum(axis=1)
        between = group_divergence(request.divergence, per_group)
        required = required_units(between, scores, rule, marks)
        count = units_to_remove(required, request.sparsity, shape.groups, marks)
        groups = np.arange(shape.groups)
        chosen = choose_units(groups, required, scores, rule.score, count, marks.keep)
        return removal_plan(block, shape, of_whole_groups(chosen, per_group), grouped=True)

    def step(self, shape):
        return shape.units_per_group

    def fits(self, shape):
        return shape.groups > 1

    def groups_left(self, shape, keep):
        return keep // shape.units_per_group

    def parameters_per_head(self, shape):
        return shape.parameters(shape.units, shape.groups) / shape.units

    def note(self, shape):
        each = shape.units_per_group
        return f"Whole key/value groups go, so a block's count is a multiple of {each}."


HEAD_POLICIES.add(
    "kv_group",
    WholeGroups(),
    title="Whole key/value groups",
    summary="A key/value head goes with all of its query heads.",
    source="Headroom; cf. An et al., AAAI 2024 (FLAP)",
    cost="closed form",
    place=20,
)
