"""Whichever of the other policies loses least."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from pruning.planning.head_policies.base import HEAD_POLICIES, HeadPolicy, alternatives
from pruning.planning.selection import attention_parameters
from pruning.utils.errors import UsageError


class LeastLost(HeadPolicy):
    """Of all policies and counts, the least score lost among those that save at least the wanted
    share of the module's parameters."""

    weighs_others = True

    def select(self, request):
        shape, plans, refused = request.shape, [], None
        limit = (1.0 - request.sparsity) * shape.parameters(shape.units, shape.groups)
        for policy in alternatives("auto", shape).values():
            try:
                plan = _least_that_saves(policy, request, limit)
            except UsageError as error:  # this policy cannot honour the marks; another may
                refused = refused or error
                continue
            if policy.pays(plan, shape):
                plans.append(plan)
        if not plans:
            raise refused
        sizes = [attention_parameters(plan, shape) for plan in plans]
        # where no form is small enough: the smallest there is
        limit = max(limit, min(sizes))
        lost = [float(request.scores[list(plan.removed)].sum()) for plan in plans]
        prices = zip(lost, sizes, range(len(plans)), strict=True)
        return plans[min(price for price in prices if price[1] <= limit)[2]]

    def parameters_per_head(self, shape):
        return shape.parameters(shape.units, shape.groups) / shape.units

    def note(self, shape):
        return (
            "Whole key/value groups, the same number from each, or any heads, whichever loses "
            "least: a block's count is rounded to suit."
        )


def _least_that_saves(policy, request, limit: float):
    """The plan of one policy that removes the fewest heads and leaves at most ``limit``
    parameters. They fall with the count, and lost score grows: bisection finds the count."""
    units = request.shape.units

    def plan(count: int):
        return policy.select(replace(request, sparsity=count / units))

    def saves(count: int) -> bool:
        return attention_parameters(plan(count), request.shape) <= limit

    return plan(min(bisect_left(range(units), True, key=saves), units - 1))


HEAD_POLICIES.add(
    "auto",
    LeastLost(),
    title="Whichever loses least",
    summary="Tries the other policies in every block and takes the one that loses the least score.",
    source="Headroom",
    cost="closed form",
    place=40,
)
