"""Whole key/value groups, with all of their query heads."""

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
from pruning.planning.marks import marked_groups
from pruning.planning.selection import dense_parameters, in_turn, of_whole_groups, removal_plan
from pruning.planning.similarity import group_divergence


class WholeGroups(HeadPolicy):
    """Groups are compared and scored as wholes; a mark takes its group along. A single group
    cannot go whole."""

    loss_curve = "kv_group_expected_loss"

    def select(self, request: HeadRequest) -> ModulePlan:
        return self.chooser(request)(request.sparsity)

    def chooser(self, request: HeadRequest) -> Chooser:
        block, shape, rule = request.block, request.shape, request.rule
        per_group = shape.units_per_group
        marks = marked_groups(block, shape, request.marks)
        scores = request.scores.reshape(shape.groups, per_group).sum(axis=1)
        between = group_divergence(request.divergence, per_group)
        required = required_units(between, scores, rule, marks)
        order = in_turn(np.arange(shape.groups), required, scores, rule.score, marks.keep)

        def choose(sparsity: float) -> ModulePlan:
            count = units_to_remove(required, sparsity, shape.groups, marks)
            chosen = of_whole_groups(dict(order[:count]), per_group)
            return removal_plan(block, shape, chosen, grouped=True)

        return choose

    def step(self, shape: ModuleShape) -> int:
        return shape.units_per_group

    def fits(self, shape: ModuleShape) -> bool:
        return shape.groups > 1

    def groups_left(self, shape: ModuleShape, keep: int) -> int:
        return keep // shape.units_per_group

    def parameters_per_head(self, shape: ModuleShape) -> float:
        return dense_parameters(shape) / shape.units

    def note(self, shape: ModuleShape) -> str:
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
