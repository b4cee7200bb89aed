"""Which heads of a block go: marked ones, then similar ones, then by score."""

from __future__ import annotations

from dataclasses import replace

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.recipe import Recipe
from pruning.criteria import unit_scores
from pruning.planning.head_policies.base import FALLBACK, HeadRequest, policy_for
from pruning.planning.marks import HeadMarks
from pruning.planning.selection import keep_all


def plan_heads(
    measurement: Measurement, recipe: Recipe, index: int, sparsity: float, policy: str | None = None
) -> ModulePlan:
    """What block ``index`` loses of its heads when a share of ``sparsity`` must go: marked heads
    first, then those similar at τ, then the weakest for what ``sparsity`` still asks. Heads that
    are marked to keep never go, even if the share is then not reached.

    ``policy``: how heads go that share key/value heads (None: as the recipe says); where it does
    not fit the module, or does not pay, they go by ``query``. A module that is ``fixed`` keeps
    everything. Raises UsageError when the policy cannot honour the marks, and NeedsMeasurement.
    """
    shape, measured = measurement.shape.blocks[index].attention, measurement.blocks[index]
    scores = unit_scores(
        recipe.heads.score, measured.attention.statistics, shape, seed=recipe.seed, block=index
    )
    if shape.fixed:
        return keep_all(index, shape)
    marked = recipe.marks.get(index)
    marks = HeadMarks(marked.keep, marked.drop) if marked else HeadMarks()
    request = HeadRequest(index, shape, measured.divergence, scores, recipe.heads, sparsity, marks)
    return replace(select_heads(request, policy), held=marks.keep)


def select_heads(request: HeadRequest, policy: str | None = None) -> ModulePlan:
    """Heads by ``policy`` (None: the rule's), or by ``query`` where that does not fit or pay.
    Raises UsageError when the marks cannot be honoured."""
    shape = request.shape
    chosen = policy_for(policy or request.rule.policy, shape)
    plan = chosen.select(request)
    return plan if chosen.pays(plan, shape) else policy_for(FALLBACK, shape).select(request)
