"""Surgery and recovery, module by module, on a copy that shares what stays (method section 4)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapters.base import DepthTwo, ModelAdapter, adapter_for
from pruning.adapters.projection import layer_matrix, set_layer
from pruning.corpora.windows import Windows
from pruning.criteria import SCORES, unit_scores
from pruning.errors import UsageError
from pruning.events import (
    CancelCheck,
    ModuleEvent,
    Progress,
    ProgressCallback,
    ignore,
    never,
    stop_if,
)
from pruning.least_squares import Fit, LevelTwo, NormalEquations, Stopwatch
from pruning.measure.stream import ModuleSums
from pruning.plan import ModulePlan, Plan, check
from pruning.planning import block_range, rescored
from pruning.recipe import Recipe
from pruning.recovery import RECOVERIES, Recovery
from pruning.shape import KINDS, ModuleKind, Widths
from pruning.streaming import batches, block_contexts, embed, run_tapped, run_with_output
from pruning.surgery import cut, expand, shared_copy

HELD_OUT_EVERY = 10
"""Every tenth calibration window is held out to choose the damping."""


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
    run = _Run(model, pruned, adapter, plan, recipe, windows)
    touched = run.last_block() + 1
    for index in range(touched):
        run.enter_block(index)
        for kind in KINDS:
            stop_if(should_cancel)
            event = run.module(index, kind)
            done = 2 * index + KINDS.index(kind) + 1
            progress(Progress("prune", done, 2 * touched, f"Block {index} {kind}", event))
    return Applied(pruned, run.plan, tuple(run.widths), tuple(run.events))


class _Run:
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
        self.device = dense.device
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

    def enter_block(self, index: int) -> None:
        """Remember the block's input where both of its modules read it."""
        parallel = self.adapter.parallel(self.dense_blocks[index])
        self.block_inputs = (self.dense.clone(), self.pruned.clone()) if parallel else None

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
        task = _ModuleTask(self, index, kind, decision, solving)
        if self.recovery.reconstructs:
            task.reconstruct_level1()
        task.collect()
        if self.recovery.reconstructs:
            task.reconstruct_level2()
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

    def _record(self, index: int, kind: ModuleKind, task: _ModuleTask, fit: Fit) -> None:
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

    def _advance(self, task: _ModuleTask) -> None:
        if not self.diverged:
            self.pruned = self.dense.clone()
            if self.block_inputs:
                self.block_inputs = (self.block_inputs[0], self.block_inputs[0].clone())
        _, pruned_in = self.inputs()
        for batch in batches(*self.dense.shape[:2]):
            added = self.run(task.block, task.kind, task.index, pruned_in[batch])
            self.pruned[batch] += added
        self.dense += task.contribution

    def run(self, block: nn.Module, kind: ModuleKind, index: int, hidden: Tensor) -> Tensor:
        """Contribution of one module for a batch on the CPU; computed on the device."""
        context = self.contexts[index]
        return self.adapter.run(block, kind, hidden.to(self.device), context).to(hidden.device)


class _ModuleTask:
    """The work on one module: equations, decision, fit, cut."""

    def __init__(
        self, run: _Run, index: int, kind: ModuleKind, decision: ModulePlan, solving: Stopwatch
    ) -> None:
        self.run, self.index, self.kind, self.solving = run, index, kind, solving
        self.decision = decision
        self.block = run.pruned_blocks[index]
        self.module: DepthTwo = run.adapter.module(self.block, kind)
        self.had_bias = self.module.level2.bias is not None
        self.contribution = torch.empty_like(run.dense)
        self.energy = 0.0
        self._contributed = False

    def _tapped(self, blocks: nn.ModuleList, hidden: Tensor) -> Any:
        run, block = self.run, blocks[self.index]
        module = run.adapter.module(block, self.kind)
        hidden = hidden.to(run.device)
        return run_tapped(run.adapter, block, module, hidden, run.contexts[self.index])

    def reconstruct_level1(self) -> None:
        """Algorithms 1, 3, 4, first half: fit level 1 to the dense outputs on the dense stream."""
        run, dense_module = self.run, self._dense_module()
        layers, dense_layers = self.module.level1_layers(), dense_module.level1_layers()
        sizes = [layer_matrix(layer).shape[0] for layer in layers]
        inputs = layer_matrix(layers[0]).shape[1]
        parts = [NormalEquations.zeros(inputs, sum(sizes), run.device) for _ in range(2)]
        dense_in, pruned_in = run.inputs()
        for batch in batches(*dense_in.shape[:2]):
            target = self._level1_outputs(dense_layers, dense_in[batch])
            seen = self._tapped(run.pruned_blocks, pruned_in[batch]).level1_input
            _add_split(parts, batch, seen, target)
        with self.solving:
            level = self._level_problem(*parts, self._stacked(layers))
            # a new bias is recorded (and loaded) for level 2 only
            fit = replace(level, add_bias=False).refitted()
        bias_rows = None if fit.bias is None else fit.bias.split(sizes)
        weights = fit.weight.T.split(sizes)
        for place, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
            bias = None if bias_rows is None else bias_rows[place].to(layer.weight)
            set_layer(layer, weight.to(layer.weight), bias)

    def _dense_module(self) -> DepthTwo:
        return self.run.adapter.module(self.run.dense_blocks[self.index], self.kind)

    def _level1_outputs(self, layers: list[nn.Module], hidden: Tensor) -> Tensor:
        """Outputs [n, s, rows] of whole level-1 layers, side by side."""
        tap = self._tapped(self.run.dense_blocks, hidden)
        return torch.cat([layer(tap.level1_input) for layer in layers], dim=-1)

    def _stacked(self, layers: list[nn.Module]) -> tuple[Tensor, Tensor | None]:
        weight = torch.cat([layer_matrix(layer) for layer in layers]).double().T
        if layers[0].bias is None:
            return weight, None
        return weight, torch.cat([layer.bias for layer in layers]).double()

    def collect(self) -> None:
        """One pass: the dense contribution, and the equations of level 2 on the pruned stream.

        The target is the dense output plus what the residual stream has lost so far, or the
        dense output alone (``recovery.target``, or a norm after the module: ``DepthTwo.normed``).
        """
        run, level2 = self.run, layer_matrix(self.module.level2)
        self.parts = [
            NormalEquations.zeros(level2.shape[1], level2.shape[0], run.device) for _ in range(2)
        ]
        self.sums = ModuleSums(self.module)
        dense_in, pruned_in = run.inputs()
        residual = run.recipe.recovery.target == "residual" and run.diverged
        for batch in batches(*dense_in.shape[:2]):
            added, target = self._dense_outputs(dense_in[batch])
            self.contribution[batch] = added.to(self.contribution.device)
            self.energy += target.double().square().sum().item()
            if residual and not self.module.normed:
                lost = run.dense[batch].float() - run.pruned[batch].float()
                target = target.float() + lost.to(run.device)
            tap = self._tapped(run.pruned_blocks, pruned_in[batch])
            self.sums.add(tap)
            _add_split(self.parts, batch, tap.level2_input, target)

    def _dense_outputs(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The dense module's contribution to the stream and its level-2 output, on the device."""
        run = self.run
        return run_with_output(
            run.adapter,
            run.dense_blocks[self.index],
            self._dense_module(),
            hidden.to(run.device),
            run.contexts[self.index],
        )

    def reconstruct_level2(self) -> None:
        """Algorithms 1, 3, 4, second half: fit level 2 before the cut."""
        layer = self.module.level2
        with self.solving:
            fit = self._level2(torch.arange(layer_matrix(layer).shape[1])).refitted()
        bias = None if fit.bias is None else fit.bias.to(layer.weight)
        set_layer(layer, fit.weight.T.to(layer.weight), bias)

    def rescore(self) -> None:
        """Choose again, as many units, with the updated weights and inputs."""
        rule = self.run.recipe.heads if self.kind == "attention" else self.run.recipe.ffn
        shape = self.run.plan.shape.blocks[self.index].module(self.kind)
        scores = unit_scores(SCORES[rule.score], self.sums.result().statistics, shape)
        self.decision = rescored(self.decision, shape, scores, rule.score)

    def finish(self) -> tuple[float, Fit]:
        """Fit the kept channels and cut; returns the error without recovery, and the fit."""
        kept = expand(self.decision.kept, self.module.unit_width)
        level = self._level2(kept)
        with self.solving:
            before = level.cut().error
            fit = self.run.recovery.finish(level)
        cut(
            self.run.adapter,
            self.block,
            self.module,
            self.decision.kept,
            self.decision.kept_groups,
            fit.weight.T.to(self.run.device),
            None if fit.bias is None else fit.bias.to(self.run.device),
        )
        return before, fit

    def _level2(self, kept: Tensor) -> LevelTwo:
        weight, bias = self._stacked([self.module.level2])
        return self._level_problem(*self.parts, (weight, bias), kept)

    def _level_problem(
        self,
        fitting: NormalEquations,
        held_out: NormalEquations,
        present: tuple[Tensor, Tensor | None],
        kept: Tensor | None = None,
    ) -> LevelTwo:
        fitting, held_out = fitting.double(), held_out.double()
        device = fitting.gram.device
        weight, bias = present[0].to(device), None if present[1] is None else present[1].to(device)
        kept = torch.arange(len(weight)) if kept is None else kept
        rule = self.run.recipe.recovery
        return LevelTwo(
            fitting=fitting,
            held_out=held_out,
            weight=weight,
            bias=bias,
            kept=kept.to(device),
            damping=rule.damping,
            add_bias=rule.intercept == "add",
        )


def _add_split(parts: list[NormalEquations], batch: slice, x: Tensor, target: Tensor) -> None:
    """Add a batch of windows; every HELD_OUT_EVERY-th window goes to the held-out part."""
    numbers = torch.arange(batch.start, batch.stop)
    held = (numbers % HELD_OUT_EVERY == HELD_OUT_EVERY - 1).to(x.device)
    parts[0].add(x[~held], target[~held])
    if held.any():
        parts[1].add(x[held], target[held])
