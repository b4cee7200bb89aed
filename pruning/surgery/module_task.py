"""One module's part in applying a plan: its equations, its decision, its fit, the cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pruning.adapters.base import PrunableModule
from pruning.adapters.projection import layer_like, layer_matrix, layer_shape, set_layer
from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.shapes import ModuleKind
from pruning.criteria import CRITERIA, unit_scores
from pruning.measure.forward_pass import ModuleSums
from pruning.models.execution.blockwise import batches, run_tapped, run_with_output
from pruning.planning.rescore import rescored
from pruning.recovery.solvers.activation_buffer import ActivationBuffer, Equations, equations
from pruning.recovery.solvers.layer_fit import Fit, OutputProjectionFit
from pruning.recovery.solvers.normal_equations import Stopwatch
from pruning.surgery.cut import cut, expand
from pruning.utils.precision import autocast_in

if TYPE_CHECKING:
    from pruning.surgery.apply import Run

HELD_OUT_EVERY = 10
"""Every tenth calibration window (with its rewritten copies) is held out to choose the damping."""


class ModuleTask:
    """The work on one module; its layers are found in the pruned model's block."""

    def __init__(
        self, run: Run, index: int, kind: ModuleKind, decision: ModulePlan, solving: Stopwatch
    ) -> None:
        self.run, self.index, self.kind, self.solving = run, index, kind, solving
        self.decision = decision
        self.block = run.pruned_blocks[index]
        self.module: PrunableModule = run.adapter.module(self.block, kind)
        self.had_bias = self.module.out_proj.bias is not None
        self.contribution = torch.empty_like(run.dense)
        self.energy = 0.0
        self.rows: list[ActivationBuffer] | None = None

    def _tapped(self, blocks: nn.ModuleList, hidden: Tensor) -> Any:
        run, block = self.run, blocks[self.index]
        module = run.adapter.module(block, self.kind)
        hidden = hidden.to(run.device)
        return run_tapped(run.adapter, block, module, hidden, run.contexts[self.index])

    def _no_equations(self, inputs: int, outputs: int) -> list[Equations]:
        """Those of the tokens to fit on and of the held-out ones, before any token."""
        tokens = self.run.dense.shape[0] * self.run.dense.shape[1]
        dtype = self.run.dense.dtype
        return [equations(tokens, inputs, outputs, self.run.device, dtype) for _ in range(2)]

    def reconstruct_in_proj(self) -> None:
        """Algorithms 1, 3, 4, first half: fit level 1 to the dense outputs on the dense stream."""
        run, dense_module = self.run, self._dense_module()
        layers, dense_layers = self.module.in_proj_layers(), dense_module.in_proj_layers()
        sizes = [layer_matrix(layer).shape[0] for layer in layers]
        inputs = layer_matrix(layers[0]).shape[1]
        parts = self._no_equations(inputs, sum(sizes))
        dense_in, pruned_in = run.inputs()
        for batch in batches(*dense_in.shape[:2]):
            target = self._in_proj_outputs(dense_layers, dense_in[batch])
            seen = self._tapped(run.pruned_blocks, pruned_in[batch]).in_proj_input
            _add_split(parts, batch, run.family, seen, target)
        # a new bias is recorded (and loaded) for level 2 only
        level = self._fit_of(*parts, self._stacked(layers), add_bias=False)
        with self.solving:
            fit = level.refitted()
        bias_rows = None if fit.bias is None else fit.bias.split(sizes)
        weights = fit.weight.T.split(sizes)
        for place, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
            bias = None if bias_rows is None else bias_rows[place].to(layer.weight)
            set_layer(layer, weight.to(layer.weight), bias)

    def _dense_module(self) -> PrunableModule:
        return self.run.adapter.module(self.run.dense_blocks[self.index], self.kind)

    def _in_proj_outputs(self, layers: list[nn.Module], hidden: Tensor) -> Tensor:
        """Outputs [n, s, rows] of whole level-1 layers, side by side."""
        tap = self._tapped(self.run.dense_blocks, hidden)
        with self._autocast():
            return torch.cat([layer(tap.in_proj_input) for layer in layers], dim=-1)

    def _autocast(self) -> AbstractContextManager:
        return autocast_in(self.run.adapter.products, self.run.device)

    def _stacked(self, layers: list[nn.Module]) -> tuple[Tensor, Tensor | None]:
        weight = torch.cat([layer_matrix(layer) for layer in layers]).double().T
        if layers[0].bias is None:
            return weight, None
        return weight, torch.cat([layer.bias for layer in layers]).double()

    def collect(self) -> None:
        """One pass: the dense contribution, and the equations of level 2 on the pruned stream.

        The target is the dense output plus what the residual stream has lost so far, or the
        dense output alone (``recovery.target``, or a norm after the module:
        ``PrunableModule.normed``).
        """
        run, out_proj = self.run, layer_matrix(self.module.out_proj)
        self.parts = self._no_equations(out_proj.shape[1], out_proj.shape[0])
        if isinstance(self.parts[0], ActivationBuffer):
            self.rows = self.parts
        self.sums = self._no_sums()
        dense_in, pruned_in = run.inputs()
        residual = run.recipe.recovery.target == "residual" and run.diverged
        for batch in batches(*dense_in.shape[:2]):
            added, target = self._dense_outputs(dense_in[batch])
            self.contribution[batch] = added.to(self.contribution.device)
            self.energy += target.float().square().sum(-1).double().sum().item()
            if residual and not self.module.normed:
                lost = run.dense[batch].float() - run.pruned[batch].float()
                target = target.float() + lost.to(run.device)
            tap = self._tapped(run.pruned_blocks, pruned_in[batch])
            if self.sums:
                self.sums.add(tap)
            _add_split(self.parts, batch, run.family, tap.out_proj_input, target)

    def _no_sums(self) -> ModuleSums | None:
        """What re-scoring needs, before any token; None: the decision stays."""
        recipe = self.run.recipe
        criterion = CRITERIA[self._score()]
        if recipe.recovery.rescore and self.run.recovery.uses_tokens and criterion.updates:
            return ModuleSums(self.module, in_proj=criterion.in_proj)
        return None

    def _score(self) -> str:
        recipe = self.run.recipe
        return recipe.heads.score if self.kind == "attention" else recipe.ffn.score

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

    def reconstruct_out_proj(self) -> None:
        """Algorithms 1, 3, 4, second half: fit level 2 before the cut."""
        layer = self.module.out_proj
        level = self._out_proj_fit(torch.arange(layer_shape(layer)[1]))
        self.parts = level.parts  # products, which are not counted as solving
        with self.solving:
            fit = level.refitted()
        like = layer_like(layer)
        set_layer(layer, fit.weight.T.to(like), None if fit.bias is None else fit.bias.to(like))

    def rescore(self) -> None:
        """Choose again, as many units, with the updated weights and inputs, if the recipe wants
        it; a criterion that cannot be taken again leaves the planned decision."""
        if self.sums is None:
            return
        recipe, name = self.run.recipe, self._score()
        shape = self.run.plan.shape.blocks[self.index].module(self.kind)
        statistics = self.sums.result().statistics
        scores = unit_scores(name, statistics, shape, seed=recipe.seed, block=self.index)
        self.decision = rescored(self.decision, shape, scores, name)

    def finish(self) -> tuple[float, Fit]:
        """Fit the kept channels and cut; returns the error without recovery, and the fit."""
        kept = expand(self.decision.kept, self.module.unit_width)
        self.kept = kept.to(self.run.device)
        level = self._out_proj_fit(kept)
        self.parts = level.parts  # products, which are not counted as solving
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

    def added(self) -> Iterator[tuple[slice, Tensor]]:
        """Contribution of the cut module to the pruned stream, batch by batch, on the CPU."""
        run = self.run
        _, pruned_in = run.inputs()
        for place, batch in enumerate(batches(*run.dense.shape[:2])):
            if self.rows and not self.module.normed:
                yield batch, self._out_proj_output(self.rows, place, batch)
            else:
                yield batch, run.run(self.block, self.kind, self.index, pruned_in[batch])

    def _out_proj_output(self, rows: list[ActivationBuffer], place: int, batch: slice) -> Tensor:
        """What the cut level 2 gives [n, s, d] for the inputs collected in one batch."""
        out_proj = self.run.adapter.module(self.block, self.kind).out_proj
        held = held_out(batch, self.run.family)
        output = torch.empty_like(self.run.dense[batch])
        for part, windows in zip(rows, (~held, held), strict=True):
            x = part.parts[place][0].index_select(1, self.kept)
            with self._autocast():
                given = out_proj(x)
            output[windows] = given.unflatten(0, (-1, output.shape[1])).to(output)
        return output

    def _out_proj_fit(self, kept: Tensor) -> OutputProjectionFit:
        weight, bias = self._stacked([self.module.out_proj])
        return self._fit_of(*self.parts, (weight, bias), kept)

    def _fit_of(
        self,
        fitting: Equations,
        held_out: Equations,
        present: tuple[Tensor, Tensor | None],
        kept: Tensor | None = None,
        add_bias: bool = True,
    ) -> OutputProjectionFit:
        fitting, held_out = fitting.double(), held_out.double()
        device = fitting.device
        weight, bias = present[0].to(device), None if present[1] is None else present[1].to(device)
        kept = torch.arange(len(weight)) if kept is None else kept
        rule = self.run.recipe.recovery
        return OutputProjectionFit(
            fitting=fitting,
            held_out=held_out,
            weight=weight,
            bias=bias,
            kept=kept.to(device),
            damping=rule.damping,
            add_bias=add_bias and rule.intercept == "add",
        )


def _add_split(
    parts: list[Equations], batch: slice, family: int, x: Tensor, target: Tensor
) -> None:
    """Add a batch of windows; every HELD_OUT_EVERY-th family goes to the held-out part."""
    held = held_out(batch, family)
    if not held.any():
        parts[0].add(x, target)
        parts[1].add(x[:0], target[:0])
        return
    held = held.to(x.device)
    parts[0].add(x[~held], target[~held])
    parts[1].add(x[held], target[held])


def held_out(batch: slice, family: int) -> Tensor:
    """Which windows of a batch [n] are held out."""
    numbers = torch.arange(batch.start, batch.stop) // family
    return numbers % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
