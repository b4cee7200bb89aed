"""Any heads: every query head first gets its own copy of its key/value head."""

from __future__ import annotations

from dataclasses import replace

from pruning.planning.head_policies.base import HEAD_POLICIES, HeadPolicy, select_any
from pruning.planning.head_policies.query import QueryHeads
from pruning.planning.selection import attention_parameters


class OwnKeysAndValues(HeadPolicy):
    """Not every family can be rewritten so, and with few heads gone the copies cost more than
    they save."""

    def select(self, request):
        return replace(select_any(request), ungrouped=True)

    def fits(self, shape):
        return shape.ungroups

    def pays(self, plan, shape):
        return attention_parameters(plan, shape) < shape.parameters(shape.units, shape.groups)

    def note(self, shape):
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
