"""The work on attention or on an FFN that is no mixture of experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning.adapters.projection import layer_matrix, set_layer
from pruning.artifacts.plan import ModulePlan
from pruning.measure.forward_pass import ModuleSums
from pruning.recovery.solvers.activation_buffer import ActivationBuffer, Equations, equations
from pruning.recovery.solvers.layer_fit import Fit, OutputProjectionFit
from pruning.surgery.cut import expand
from pruning.surgery.task import Collected, Task
from pruning.utils.precision import to_float64, zeros_float64

Pair = tuple[Equations, Equations]
"""The equations of the tokens to fit on and of the held-out ones."""


class ModuleTask(Task[Pair]):
    """One system of equations for all units."""

    def reconstruct_in_proj(self) -> None:
        layers, dense_layers = self.pair.pruned.in_proj_layers(), self.pair.dense.in_proj_layers()
        sizes = [layer_matrix(layer).shape[0] for layer in layers]
        parts = self._no_equations(layer_matrix(layers[0]).shape[1], sum(sizes))
        for batch, dense_in, pruned_in in self.streams.batches():
            target = self._dense_in_proj(dense_layers, dense_in)
            entering = self.pair.tap_pruned(pruned_in).in_proj_input
            self._add(parts, batch, entering, target)
        parts = self._gathered(parts)
        # a new bias is recorded (and loaded) for out_proj only
        in_proj = OutputProjectionFit.of(parts, *_stacked(layers), self.rule.damping)

        def put(fit: Fit) -> None:
            biases = [None] * len(layers) if fit.bias is None else fit.bias.split(sizes)
            weights = fit.weight.T.split(sizes)
            for layer, weight, bias in zip(layers, weights, biases, strict=True):
                like = layer.weight
                set_layer(layer, self.rounded(weight, like), self.rounded(bias, like))

        self._put_in_proj(in_proj, put)

    def _dense_in_proj(self, layers: list[nn.Module], hidden: Tensor) -> Tensor:
        """Outputs [n, s, rows] of whole dense in_proj layers, side by side."""
        tap = self.pair.tap_dense(hidden)
        with self.pair.autocast():
            return torch.cat([layer(tap.in_proj_input) for layer in layers], dim=-1)

    def collect(self, sums: ModuleSums | None, plain: ModulePlan | None = None) -> Collected[Pair]:
        streams, pair, module = self.streams, self.pair, self.pair.pruned
        outputs, inputs = layer_matrix(module.out_proj).shape
        parts = self._no_equations(inputs, outputs)
        dense_added, energy = torch.empty_like(streams.dense), zeros_float64(device=pair.device)
        residual = self.rule.target == "residual" and streams.diverged and not module.normed
        plain_error, cut = zeros_float64(device=pair.device), plain and self._plain_cut(plain)
        for batch, dense_in, pruned_in in streams.batches():
            added, target = pair.dense_output(dense_in)
            dense_added[batch] = added.to(dense_added.device)
            energy += to_float64(target.float().square().sum(-1)).sum()
            if residual:
                target = target.float() + streams.lost(batch).to(pair.device)
            tap = pair.tap_pruned(pruned_in)
            if sums:
                sums.add(tap)
            self._add(parts, batch, tap.out_proj_input, target)
            if cut:
                as_it_was = pair.tap_dense(pruned_in) if self.in_proj_changed else tap
                left = cut(as_it_was.out_proj_input) - target.float()
                plain_error += to_float64(left.square().sum(-1)).sum()
        buffers = parts if isinstance(parts[0], ActivationBuffer) else None
        left_by_cut = streams.ranks.total(plain_error).item() if cut else None
        energy = streams.ranks.total(energy)
        return Collected(self._gathered(parts), dense_added, energy.item(), left_by_cut, buffers)

    def _plain_cut(self, decision: ModulePlan) -> Callable[[Tensor], Tensor]:
        """What the dense out_proj, its removed inputs silent, gives [..., out] for all of its
        inputs [..., in]; float32."""
        layer = self.pair.dense.out_proj
        kept = expand(decision.kept, self.pair.dense.unit_width).to(self.pair.device)
        weight = layer_matrix(layer)[:, kept].float()
        bias = None if layer.bias is None else layer.bias.float()
        return lambda inputs: functional.linear(inputs[..., kept].float(), weight, bias)

    def out_proj_fit(self, equations: Pair, kept: Tensor) -> OutputProjectionFit:
        weight, bias = _stacked([self.pair.pruned.out_proj])
        rule = self.rule
        return OutputProjectionFit.of(
            equations, weight, bias, rule.damping, kept=kept, add_bias=rule.intercept == "add"
        )

    def added(
        self, collected: Collected[Pair], decision: ModulePlan
    ) -> Iterator[tuple[slice, Tensor]]:
        module = self.pair.pruned
        if collected.buffers is None or module.normed:
            yield from self.streams.added(self.pair)
            return
        kept = expand(decision.kept, module.unit_width).to(self.pair.device)
        for place, (batch, *_) in enumerate(self.streams.batches()):
            # the buffers have the windows to fit on first
            places = self.streams.held_out(batch).int().argsort(stable=True).argsort()
            with self.pair.autocast():
                given = [
                    module.out_proj(buffer.parts[place][0].index_select(1, kept))
                    for buffer in collected.buffers
                ]
            together = torch.cat(given).unflatten(0, (len(places), -1))
            yield batch, together[places.to(together.device)].to(self.streams.dense)

    def _no_equations(self, inputs: int, outputs: int) -> Pair:
        """Those before any token."""
        stream = self.streams.dense
        size = (self.streams.tokens, inputs, outputs, self.pair.device, stream.dtype)
        return equations(*size), equations(*size)

    def _gathered(self, parts: Pair) -> Pair:
        """The equations of all ranks."""
        ranks = self.streams.ranks
        return parts[0].gathered(ranks), parts[1].gathered(ranks)

    def _add(self, parts: Pair, batch: slice, x: Tensor, target: Tensor) -> None:
        """Add a batch of windows, those that are held out to the second part."""
        held = self.streams.held_out(batch)
        if not held.any():
            parts[0].add(x, target)
            parts[1].add(x[:0], target[:0])
            return
        for part, windows in zip(parts, (~held, held), strict=True):
            places = windows.nonzero()[:, 0].to(x.device)  # a mask would wait for the device
            part.add(x[places], target[places])


def _stacked(layers: list[nn.Module]) -> tuple[Tensor, Tensor | None]:
    """Weight [in, out] and bias [out] of layers side by side, float64."""
    weight = to_float64(torch.cat([layer_matrix(layer) for layer in layers])).T
    if layers[0].bias is None:
        return weight, None
    return weight, to_float64(torch.cat([layer.bias for layer in layers]))
