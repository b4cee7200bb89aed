"""Any heads: every query head first gets its own copy of its key/value head."""

from __future__ import annotations

from dataclasses import replace

from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.shapes import ModuleShape
from pruning.planning.head_policies.base import (
    HEAD_POLICIES,
    Chooser,
    HeadPolicy,
    HeadRequest,
    any_chooser,
)
from pruning.planning.head_policies.query import QueryHeads
from pruning.planning.selection import attention_parameters, dense_parameters


class OwnKeysAndValues(HeadPolicy):
    """Not every family can be rewritten so, and with few heads gone the copies cost more than
    they save."""

    def select(self, request: HeadRequest) -> ModulePlan:
        return self.chooser(request)(request.sparsity)

    def chooser(self, request: HeadRequest) -> Chooser:
        choose = any_chooser(request)
        return lambda sparsity: replace(choose(sparsity), ungrouped=True)

    def fits(self, shape: ModuleShape) -> bool:
        return shape.ungroups

    def pays(self, plan: ModulePlan, shape: ModuleShape) -> bool:
        return attention_parameters(plan, shape) < dense_parameters(shape)

    def note(self, shape: ModuleShape) -> str:
        even = QueryHeads().note(shape)
        return f"Any heads go; where that would save nothing, t{even[1:]}"


HEAD_POLICIES.add(
    "ungroup",
    OwnKeysAndValues(),
    title="Any heads, each with its own key and value",
    summary="The block is rewritten so that any heads can go, where that still saves parameters.",
    source="Headroom",
    cost="closed form",
    place=30,
)
