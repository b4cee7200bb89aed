"""Whichever of the other policies loses least."""

from __future__ import annotations

from bisect import bisect_left

from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.shapes import ModuleShape
from pruning.planning.head_policies.base import HEAD_POLICIES, HeadPolicy, HeadRequest, alternatives
from pruning.planning.selection import attention_parameters, dense_parameters
from pruning.utils.errors import UsageError


class LeastLost(HeadPolicy):
    """Of all policies and counts, the least score lost among those that save at least the wanted
    share of the module's parameters."""

    weighs_others = True

    def select(self, request: HeadRequest) -> ModulePlan:
        shape = request.shape
        plans: list[ModulePlan] = []
        refusals: list[UsageError] = []
        limit = (1.0 - request.sparsity) * dense_parameters(shape)
        for policy in alternatives("auto", shape).values():
            try:
                plan = _least_that_saves(policy, request, limit)
            except UsageError as error:  # this policy cannot honour the marks; another may
                refusals.append(error)
                continue
            if policy.pays(plan, shape):
                plans.append(plan)
        if not plans:
            raise refusals[0]
        sizes = [attention_parameters(plan, shape) for plan in plans]
        # where no form is small enough: the smallest there is
        limit = max(limit, min(sizes))
        lost = [float(request.scores[list(plan.removed)].sum()) for plan in plans]
        prices = zip(lost, sizes, range(len(plans)), strict=True)
        return plans[min(price for price in prices if price[1] <= limit)[2]]

    def parameters_per_head(self, shape: ModuleShape) -> float:
        return dense_parameters(shape) / shape.units

    def note(self, shape: ModuleShape) -> str:
        return (
            "Whole key/value groups, the same number from each, or any heads, whichever loses "
            "least: a block's count is rounded to suit."
        )


def _least_that_saves(policy: HeadPolicy, request: HeadRequest, limit: float) -> ModulePlan:
    """The plan of one policy that removes the fewest heads and leaves at most ``limit``
    parameters. They fall with the count, and lost score grows: bisection finds the count."""
    units, choose = request.shape.units, policy.chooser(request)
    plans: dict[int, ModulePlan] = {}

    def saves(count: int) -> bool:
        plans[count] = choose(count / units)
        return attention_parameters(plans[count], request.shape) <= limit

    count = min(bisect_left(range(units), True, key=saves), units - 1)
    return plans.get(count) or choose(count / units)


HEAD_POLICIES.add(
    "auto",
    LeastLost(),
    title="Whichever loses least",
    summary="Tries the other policies in every block and takes the one that loses the least score.",
    source="Headroom",
    cost="closed form",
    place=40,
)
