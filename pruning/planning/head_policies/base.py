"""What a head policy is, and what several of them need.

Add one: a file in this folder with a subclass of :class:`HeadPolicy` and a call of
``HEAD_POLICIES.add("name", MyPolicy(), title=..., summary=..., source=...)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pruning import registries
from pruning.artifacts.plan import BY_HAND, SIMILARITY, ModulePlan
from pruning.artifacts.rules import HeadRule
from pruning.artifacts.shapes import ModuleShape
from pruning.planning.marks import HeadMarks
from pruning.planning.selection import (
    Reason,
    Reasons,
    dense_parameters,
    in_turn,
    removal_plan,
    removed_count,
)
from pruning.planning.similarity import candidates, weaker_candidates
from pruning.utils.registry import Registry


@dataclass(frozen=True)
class HeadRequest:
    """What is asked of the heads of one block.

    ``divergence`` [heads, heads] in nats; ``scores`` [heads] by the rule's criterion;
    ``sparsity``: share of heads that must go; ``marks``: heads that stay or go in any case.
    """

    block: int
    shape: ModuleShape
    divergence: np.ndarray
    scores: np.ndarray
    rule: HeadRule
    sparsity: float
    marks: HeadMarks


Chooser = Callable[[float], ModulePlan]
"""What goes when a share of the heads must."""


class HeadPolicy(ABC):
    """One way to take heads out of grouped-query attention, in shapes that a kernel can run."""

    loss_curve = "expected_loss"
    """The statistic that holds its loss curve: loss by number of heads (or groups) that stay."""
    weighs_others = False
    """It takes, of all other policies, the one that loses least."""

    @abstractmethod
    def select(self, request: HeadRequest) -> ModulePlan:
        """Marked heads first, then similar ones, then the weakest by score. Raises UsageError
        when the marks cannot be honoured."""

    def chooser(self, request: HeadRequest) -> Chooser:
        """:meth:`select` for any share in place of the ``request``'s, for whoever asks about many:
        what does not depend on it may be found once. Raises the same."""
        return lambda sparsity: self.select(replace(request, sparsity=sparsity))

    def step(self, shape: ModuleShape) -> int:
        """How many heads go at once."""
        return 1

    def fits(self, shape: ModuleShape) -> bool:
        """Whether such an attention module can be cut this way."""
        return True

    def pays(self, plan: ModulePlan, shape: ModuleShape) -> bool:
        """Whether what :meth:`select` gave is worth it; else heads go by the policy ``query``."""
        return True

    def groups_left(self, shape: ModuleShape, keep: int) -> int:
        """Key/value heads that stay when ``keep`` heads do."""
        return keep

    def parameters_left(self, shape: ModuleShape, keep: int) -> int:
        """Parameters that the module has when ``keep`` heads stay."""
        return shape.parameters(keep, self.groups_left(shape, keep))

    def parameters_per_head(self, shape: ModuleShape) -> float:
        """Parameters that one head less saves, about."""
        return shape.unit_weights + shape.unit_biases

    def note(self, shape: ModuleShape) -> str:
        """What it means for the number of heads of such a module, as a sentence; may be empty."""
        return ""


HEAD_POLICIES: Registry[HeadPolicy] = registries.HEAD_POLICIES

FALLBACK = "query"
"""The policy that always fits."""


class _SeparateHeads(HeadPolicy):
    """Every head has a key/value head of its own, which goes with it: no policy is needed."""

    def select(self, request: HeadRequest) -> ModulePlan:
        return select_any(request)

    def parameters_per_head(self, shape: ModuleShape) -> float:
        return dense_parameters(shape) / shape.units


_SEPARATE = _SeparateHeads()


def policy_for(name: str, shape: ModuleShape) -> HeadPolicy:
    """The policy ``name``, or what stands in for it: FALLBACK where it does not fit the module,
    none at all where heads share nothing."""
    if shape.units_per_group == 1:
        return _SEPARATE
    policy = HEAD_POLICIES[name]
    return policy if policy.fits(shape) else HEAD_POLICIES[FALLBACK]


def alternatives(name: str, shape: ModuleShape) -> dict[str, HeadPolicy]:
    """By name the policies that ``name`` chooses from and that fit ``shape`` (most choose from
    themselves alone; where it does not fit, FALLBACK); an empty name where heads share nothing."""
    if shape.units_per_group == 1:
        return {"": _SEPARATE}
    offered = {name: HEAD_POLICIES[name]}
    if HEAD_POLICIES[name].weighs_others:
        offered = {e.name: e.value for e in HEAD_POLICIES if not e.value.weighs_others}
    fitting = {name: policy for name, policy in offered.items() if policy.fits(shape)}
    return fitting or {FALLBACK: HEAD_POLICIES[FALLBACK]}


def select_any(request: HeadRequest) -> ModulePlan:
    """Any heads, each alone."""
    return any_chooser(request)(request.sparsity)


def any_chooser(request: HeadRequest) -> Chooser:
    """:func:`select_any` for any share."""
    shape, scores, marks = request.shape, request.scores, request.marks
    required = required_units(request.divergence, scores, request.rule, marks)
    order = in_turn(np.arange(shape.units), required, scores, request.rule.score, marks.keep)

    def choose(sparsity: float) -> ModulePlan:
        count = units_to_remove(required, sparsity, shape.units, marks)
        return removal_plan(request.block, shape, dict(order[:count]))

    return choose


def required_units(
    divergence: np.ndarray, scores: np.ndarray, rule: HeadRule, marks: HeadMarks
) -> Reasons:
    """What a mark or similarity takes of the units (heads or whole groups)."""
    by_hand = dict.fromkeys(marks.drop, Reason(BY_HAND, 0.0))
    if rule.threshold is None:
        return by_hand
    if marks.drop:  # what goes anyway speaks for no one
        divergence, gone = divergence.copy(), list(marks.drop)
        divergence[gone] = divergence[:, gone] = np.inf
    if rule.drop == "weaker":
        similar = weaker_candidates(divergence, rule.threshold, scores, marks.keep)
    else:
        similar = candidates(divergence, rule.threshold, marks.keep)
    return by_hand | {c.unit: Reason(SIMILARITY, c.divergence, c.partner) for c in similar}


def units_to_remove(required: Reasons, sparsity: float, units: int, marks: HeadMarks) -> int:
    """How many of ``units`` go: what is required and what ``sparsity`` asks, without those that
    must stay."""
    wanted = max(len(required), removed_count(sparsity, units))
    return min(wanted, units - max(len(marks.keep), 1))
