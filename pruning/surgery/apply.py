"""Surgery and recovery, module by module, on a copy that shares what stays (method section 4)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from pruning.adapters.base import adapter_for
from pruning.artifacts.events import (
    CancelCheck,
    ModuleEvent,
    Progress,
    ProgressCallback,
    ignore,
    never,
    stop_if,
)
from pruning.artifacts.plan import ELIMINATION, ModulePlan, Plan, check
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import KINDS, ModuleKind, ModuleShape, Widths
from pruning.criteria import CRITERIA, unit_scores
from pruning.criteria.base import Statistics
from pruning.data.windows import Windows
from pruning.measure.forward_pass import ModuleSums
from pruning.planning.checks import block_range
from pruning.planning.rescore import rescored
from pruning.recovery import RECOVERIES, eliminates
from pruning.surgery.cut import shared_copy
from pruning.surgery.expert_task import ExpertTask
from pruning.surgery.module_task import ModuleTask
from pruning.surgery.streams import ModulePair, Streams
from pruning.surgery.task import Task
from pruning.utils.errors import UsageError
from pruning.utils.precision import autocast_dtype_of
from pruning.utils.stopwatch import Stopwatch


@dataclass(frozen=True)
class Applied:
    """The pruned ``model`` (it shares untouched parameters with the dense one), the ``plan`` as
    carried out after re-scoring, and one event per module that was changed."""

    model: PreTrainedModel
    plan: Plan
    widths: tuple[Widths, ...]
    events: tuple[ModuleEvent, ...]


@torch.no_grad()
def apply(
    model: PreTrainedModel,
    plan: Plan,
    recipe: Recipe,
    windows: Windows,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Applied:
    """Carry out ``plan`` on a copy of ``model`` and repair it as ``recipe.recovery`` says.

    ``windows``: calibration ids [n, s]. The dense model is never changed, so a cancelled run
    (raises Cancelled) leaves it as it was. New weights have values that ``plan.shape.dtype``, in
    which they will be saved, holds exactly: what is evaluated in memory is what the file will say.
    Raises UsageError when the plan does not fit, Unsupported when float16 is too narrow.
    """
    check(plan)
    adapter = adapter_for(model.config)
    shape = adapter.model_shape(model)
    if shape != replace(plan.shape, dtype=shape.dtype):
        raise UsageError("The plan was made for another model; measure this one and plan again.")
    pruned = shared_copy(model)
    if plan.is_empty:
        return Applied(pruned, plan, plan.widths, ())
    adapter = adapter.with_autocast(autocast_dtype_of(recipe.recovery.compute, model))
    streams = Streams(model, pruned, adapter, windows)
    changes: list[_Change] = []
    touched = _last_block(plan, recipe) + 1
    for index in range(touched):
        with streams.block(index):
            for kind in KINDS:
                stop_if(should_cancel)
                decision, event = plan.blocks[index].module(kind), None
                pair = streams.pair(index, kind)
                if decision.removed or (streams.diverged and _repairs_everywhere(recipe)):
                    changes.append(_change(streams, pair, decision, plan, recipe))
                    event = changes[-1].event
                else:
                    streams.pass_through(pair)
                done = 2 * index + KINDS.index(kind) + 1
                progress(Progress("prune", done, 2 * touched, f"Block {index} {kind}", event))
    return _applied(pruned, plan, changes)


@dataclass(frozen=True)
class _Change:
    """A module that was pruned or repaired; ``adds_bias``: its out_proj had none before."""

    event: ModuleEvent
    adds_bias: bool


def _applied(pruned: nn.Module, plan: Plan, changes: Sequence[_Change]) -> Applied:
    widths = list(plan.widths)
    for change in changes:
        event = change.event
        plan = plan.with_module(event.decision)
        if change.adds_bias:
            name = "added_attention_bias" if event.kind == "attention" else "added_ffn_bias"
            widths[event.block] = replace(widths[event.block], **{name: True})
    return Applied(pruned, plan, tuple(widths), tuple(change.event for change in changes))


def _last_block(plan: Plan, recipe: Recipe) -> int:
    """The last block that anything happens to."""
    cut = [i for i, b in enumerate(plan.blocks) if b.attention.removed or b.ffn.removed][-1]
    if _repairs_everywhere(recipe):
        return max(cut, block_range(recipe, len(plan.blocks))[-1])
    return cut


def _repairs_everywhere(recipe: Recipe) -> bool:
    """Whether modules that lose nothing are repaired too, once the streams have diverged."""
    rule = recipe.recovery
    return RECOVERIES[rule.method].everywhere and rule.scope == "all"


def _change(
    streams: Streams, pair: ModulePair, decision: ModulePlan, plan: Plan, recipe: Recipe
) -> _Change:
    """Prune and repair one module, then advance both streams through it."""
    started, solving = time.perf_counter(), Stopwatch()
    recovery, module = RECOVERIES[recipe.recovery.method], pair.pruned
    had_bias = module.out_proj.bias is not None
    kind_of_task = ExpertTask if module.mixture else ModuleTask
    saved_dtype = getattr(torch, plan.shape.dtype)
    task: Task = kind_of_task(streams, pair, recipe.recovery, solving, saved_dtype)
    if recovery.reconstructs and recipe.recovery.in_proj != "keep":
        task.reconstruct_in_proj()
    sums = _sums(pair, recipe, streams.windows)
    collected = task.collect(sums, decision if recovery.reconstructs else None)
    if recovery.reconstructs:
        collected = task.reconstruct_out_proj(collected)
    shape = plan.shape.blocks[pair.index].module(pair.kind)
    if eliminates(recipe) and decision.removed:
        collected, turns = task.eliminate(collected, decision)
        decision = rescored(decision, shape, turns, ELIMINATION)
    elif sums:
        found = sums.result().statistics
        decision = streams.ranks.from_first(partial(_rescored, decision, found, shape, recipe))
    finished = task.finish(collected, decision, recovery.finish)
    streams.advance(collected.added, task.added(collected, decision))
    energy = max(collected.energy, torch.finfo(torch.float32).tiny)
    event = ModuleEvent(
        block=pair.index,
        kind=pair.kind,
        units=decision.units,
        removed=decision.removed,
        removed_groups=decision.removed_groups,
        error_before=finished.error_before / energy,
        error_after=finished.fit.error / energy,
        damping=finished.fit.damping,
        seconds=time.perf_counter() - started,
        solve_seconds=solving.seconds,
        decision=decision,
    )
    return _Change(event, finished.fit.bias is not None and not had_bias)


def _sums(pair: ModulePair, recipe: Recipe, windows: Windows) -> ModuleSums | None:
    """What re-scoring needs, before any token. None: the decision stays, for the recipe wants it
    so, or the criterion cannot be taken again."""
    criterion = CRITERIA[_criterion(pair.kind, recipe)]
    if recipe.recovery.rescore and criterion.updates and not eliminates(recipe):
        return ModuleSums(pair.pruned, windows, in_proj=criterion.in_proj)
    return None


def _rescored(
    decision: ModulePlan, statistics: Statistics, shape: ModuleShape, recipe: Recipe
) -> ModulePlan:
    """Choose again, as many units, with the updated weights and inputs."""
    name = _criterion(decision.kind, recipe)
    scores = unit_scores(name, statistics, shape, seed=recipe.seed, block=decision.block)
    return rescored(decision, shape, scores, name)


def _criterion(kind: ModuleKind, recipe: Recipe) -> str:
    return recipe.heads.score if kind == "attention" else recipe.ffn.score
