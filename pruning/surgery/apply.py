"""Surgery and recovery, module by module, on a copy that shares what stays (method section 4)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, adapter_for
from pruning.artifacts.events import (
    CancelCheck,
    ModuleEvent,
    Progress,
    ProgressCallback,
    ignore,
    never,
    stop_if,
)
from pruning.artifacts.plan import Plan, check
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import KINDS, ModuleKind, Widths
from pruning.data.windows import Windows
from pruning.models.execution.blockwise import batches, block_contexts, embed
from pruning.models.execution.offload import device_of, resident
from pruning.planning.planner import block_range
from pruning.recovery import RECOVERIES, Recovery
from pruning.recovery.solvers.layer_fit import Fit
from pruning.recovery.solvers.normal_equations import Stopwatch
from pruning.surgery.cut import shared_copy
from pruning.surgery.expert_task import ExpertTask
from pruning.surgery.module_task import ModuleTask
from pruning.utils.errors import UsageError
from pruning.utils.precision import autocast_dtype_of


@dataclass(frozen=True)
class Applied:
    """The pruned ``model`` (it shares untouched parameters with the dense one), the ``plan`` as
    carried out after re-scoring, and one event per module that was changed."""

    model: nn.Module
    plan: Plan
    widths: tuple[Widths, ...]
    events: tuple[ModuleEvent, ...]


@torch.no_grad()
def apply(
    model: nn.Module,
    plan: Plan,
    recipe: Recipe,
    windows: Windows,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Applied:
    """Carry out ``plan`` on a copy of ``model`` and repair it as ``recipe.recovery`` says.

    ``windows``: calibration ids [n, s]. The dense model is never changed, so a cancelled run
    (raises Cancelled) leaves it as it was. Raises UsageError when the plan does not fit.
    """
    check(plan)
    adapter = adapter_for(model.config)
    if adapter.model_shape(model) != plan.shape:
        raise UsageError("The plan was made for another model; measure this one and plan again.")
    pruned = shared_copy(model)
    if plan.is_empty:
        return Applied(pruned, plan, plan.widths, ())
    adapter = adapter.with_autocast(autocast_dtype_of(recipe.recovery.compute, model))
    run = Run(model, pruned, adapter, plan, recipe, windows)
    touched = run.last_block() + 1
    for index in range(touched):
        with run.block(index):
            for kind in KINDS:
                stop_if(should_cancel)
                event = run.module(index, kind)
                done = 2 * index + KINDS.index(kind) + 1
                progress(Progress("prune", done, 2 * touched, f"Block {index} {kind}", event))
    return Applied(pruned, run.plan, tuple(run.widths), tuple(run.events))


class Run:
    """The two residual streams [n, s, d] (CPU, model dtype) and what has been done so far.

    Until the first cut both streams are the same tensor.
    """

    def __init__(
        self,
        dense: nn.Module,
        pruned: nn.Module,
        adapter: ModelAdapter,
        plan: Plan,
        recipe: Recipe,
        windows: Windows,
    ) -> None:
        self.adapter, self.plan, self.recipe = adapter, plan, recipe
        self.family = windows.family
        self.dense_blocks = adapter.blocks(dense)
        self.pruned_blocks = adapter.blocks(pruned)
        self.contexts = block_contexts(dense, adapter, windows.ids.shape[1])
        self.dense = embed(dense, adapter, windows.ids)
        self.pruned = self.dense
        self.recovery: Recovery = RECOVERIES[recipe.recovery.method]
        self.widths = list(plan.widths)
        self.events: list[ModuleEvent] = []

    @property
    def diverged(self) -> bool:
        return self.pruned is not self.dense

    def last_block(self) -> int:
        """The last block that anything happens to."""
        cuts = [i for i, b in enumerate(self.plan.blocks) if b.attention.removed or b.ffn.removed]
        if self._repairs_everywhere():
            return max(cuts[-1], block_range(self.recipe, len(self.plan.blocks))[-1])
        return cuts[-1]

    def _repairs_everywhere(self) -> bool:
        return self.recovery.everywhere and self.recipe.recovery.scope == "all"

    @contextmanager
    def block(self, index: int) -> Iterator[None]:
        """Have a block on its device, dense and pruned, and remember its input where both of its
        modules read it."""
        dense, pruned = self.dense_blocks[index], self.pruned_blocks[index]
        self.device = device_of(dense)
        self.block_inputs = None
        if self.adapter.parallel(dense):
            self.block_inputs = (self.dense.clone(), self.pruned.clone())
        with resident(dense, pruned, then=self.dense_blocks[index + 1 : index + 2]):
            yield

    def inputs(self) -> tuple[Tensor, Tensor]:
        """What the next module reads: ``(dense, pruned)``."""
        return self.block_inputs or (self.dense, self.pruned)

    def module(self, index: int, kind: ModuleKind) -> ModuleEvent | None:
        """Prune and repair one module, then advance both streams through it."""
        decision = self.plan.blocks[index].module(kind)
        if not decision.removed and not (self.diverged and self._repairs_everywhere()):
            self._advance_untouched(index, kind)
            return None
        started, solving = time.perf_counter(), Stopwatch()
        mixture = self.adapter.module(self.pruned_blocks[index], kind).mixture
        task = (ExpertTask if mixture else ModuleTask)(self, index, kind, decision, solving)
        if self.recovery.reconstructs:
            task.reconstruct_in_proj()
        task.collect()
        if self.recovery.reconstructs:
            task.reconstruct_out_proj()
        if self.recipe.recovery.rescore and self.recovery.uses_tokens:
            task.rescore()
        before, fit = task.finish()
        self._record(index, kind, task, fit)
        self._advance(task)
        energy = max(task.energy, torch.finfo(torch.float32).tiny)
        event = ModuleEvent(
            block=index,
            kind=kind,
            units=decision.units,
            removed=task.decision.removed,
            removed_groups=task.decision.removed_groups,
            error_before=before / energy,
            error_after=fit.error / energy,
            damping=fit.damping,
            seconds=time.perf_counter() - started,
            solve_seconds=solving.seconds,
            decision=task.decision,
        )
        self.events.append(event)
        return event

    def _record(self, index: int, kind: ModuleKind, task: ModuleTask, fit: Fit) -> None:
        self.plan = self.plan.with_module(task.decision)
        if fit.bias is not None and not task.had_bias:
            name = "added_attention_bias" if kind == "attention" else "added_ffn_bias"
            self.widths[index] = replace(self.widths[index], **{name: True})

    def _advance_untouched(self, index: int, kind: ModuleKind) -> None:
        dense_in, pruned_in = self.inputs()
        for batch in batches(*self.dense.shape[:2]):
            self.dense[batch] += self.run(self.dense_blocks[index], kind, index, dense_in[batch])
            if self.diverged:
                block = self.pruned_blocks[index]
                self.pruned[batch] += self.run(block, kind, index, pruned_in[batch])

    def _advance(self, task: ModuleTask) -> None:
        if not self.diverged:
            self.pruned = self.dense.clone()
            if self.block_inputs:
                self.block_inputs = (self.block_inputs[0], self.block_inputs[0].clone())
        for batch, added in task.added():
            self.pruned[batch] += added
        self.dense += task.contribution

    def run(self, block: nn.Module, kind: ModuleKind, index: int, hidden: Tensor) -> Tensor:
        """Contribution of one module for a batch on the CPU; computed on the device."""
        context = self.contexts[index]
        return self.adapter.run(block, kind, hidden.to(self.device), context).to(hidden.device)
