"""The gradient pass: how the loss would change, unit by unit.

Names of statistics: :mod:`pruning.artifacts.measurement`.

One forward pass keeps what enters each block; then the blocks are run again from the last to
the first, one module at a time, and the loss gradient is carried back through them. Parameters
are never asked for gradients: the gradient of a layer's weight is ``Gᵀ X`` of what the layer read
(X) and of the gradient by its output (G), formed in float32, reduced and dropped. So the model
stays as it is, and only one module's weight gradients exist at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, PrunableModule, adapter_for
from pruning.adapters.projection import layer_matrix
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.measurement import BlockMeasurement, Measurement
from pruning.artifacts.shapes import KINDS, ModuleKind
from pruning.criteria.base import in_proj_sum
from pruning.data.windows import Windows
from pruning.distributed.ranks import ALONE, Ranks
from pruning.measure.moments import Float64Queue
from pruning.models.execution.blockwise import (
    Frame,
    batches,
    block_contexts,
    embed,
    run_block,
    share_of,
)
from pruning.models.execution.offload import device_of, resident
from pruning.utils.errors import Unsupported
from pruning.utils.precision import to_float64, zeros_float64

_LOGITS_AT_ONCE = 2**24
"""Logits that a card holds, in float32 and with their gradients, while the loss is taken."""
TAYLOR = ("taylor_vector", "taylor_element1", "taylor_element2")


def with_gradients(
    measurement: Measurement,
    model: nn.Module,
    windows: Windows,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Measurement:
    """``measurement`` of ``model`` with the statistics of the gradient pass over ``windows``
    (ids [n, s]) added.

    Memory: one residual stream [n, s, d] per block (CPU), one module's activations of a batch,
    and two float32 copies of one module's weights. Raises Cancelled, and Unsupported when the
    gradients overflow or the model has mixtures of experts.
    """
    adapter, ranks = adapter_for(model.config), windows.ranks
    ids = windows.ids[share_of(ranks, *windows.ids.shape)]
    blocks = adapter.blocks(model)
    if any(adapter.ffn(block).mixture for block in blocks):
        raise Unsupported(
            "Taylor and Fisher scores are not there for mixtures of experts; choose scores that "
            "need no gradients, such as second_moment_exact."
        )
    with torch.no_grad():
        contexts = block_contexts(model, adapter, ids.shape[1])
        entering, gradient = _forward(model, adapter, ids, should_cancel)
        measured = list(measurement.blocks)
        for index in reversed(range(len(blocks))):
            stop_if(should_cancel)
            hidden = entering.pop()
            block = blocks[index]
            with resident(block, then=blocks[max(index - 1, 0) : index]):
                task = _BlockBackward(adapter, block, contexts[index], device_of(block), ranks)
                added = task.run(hidden, gradient)
            measured[index] = _merged(measured[index], added, model.dtype)
            done = len(blocks) - index
            progress(Progress("measure", done, len(blocks), f"Gradients of block {index}"))
    return replace(measurement, blocks=tuple(measured))


def _forward(
    model: nn.Module, adapter: ModelAdapter, ids: Tensor, should_cancel: CancelCheck
) -> tuple[list[Tensor], Tensor]:
    """Input of every block [n, s, d] and the gradient [n, s, d] (float32) of the summed loss by
    the last block's output, all on the CPU."""
    size, logits_size = _windows_at_once(model, ids)
    parts = ids.split(size)
    frames = {len(part): Frame(model, adapter, part) for part in (parts[0], parts[-1])}
    entering, gradients = [embed(model, adapter, ids)], []
    blocks = adapter.blocks(model)
    for index, block in enumerate(blocks):
        stop_if(should_cancel)
        with resident(block, then=blocks[index + 1 : index + 2]):
            leaving = [
                run_block(block, hidden, frames[len(hidden)].contexts[index])
                for hidden in entering[-1].split(size)
            ]
        entering.append(torch.cat(leaving))
    frame = frames[size]
    for windows, hidden in zip(
        ids.split(logits_size), entering.pop().split(logits_size), strict=True
    ):
        stop_if(should_cancel)
        leaf = hidden.to(model.device).requires_grad_()
        with torch.enable_grad():
            logits = frame.logits(windows, leaf)[:, :-1].flatten(0, 1).float()
            following = windows[:, 1:].flatten().to(logits.device)
            loss = nn.functional.cross_entropy(logits, following, reduction="sum")
        gradients.append(torch.autograd.grad(loss, leaf)[0].float().cpu())
    return entering, torch.cat(gradients)


def _windows_at_once(model: nn.Module, ids: Tensor) -> tuple[int, int]:
    """How many windows of ``ids`` [n, s] go through a block together, and through the output layer,
    whose logits are large. One on the CPU, where the same work takes as long either way."""
    samples, seq_len = ids.shape
    if model.device.type == "cpu":
        return 1, 1
    size = batches(samples, seq_len)[0].stop
    return size, max(1, min(size, _LOGITS_AT_ONCE // (seq_len * model.config.vocab_size)))


@dataclass(frozen=True)
class _BlockBackward:
    """Runs one block again and carries the gradient back through it."""

    adapter: ModelAdapter
    block: nn.Module
    context: Mapping[str, Any]
    device: torch.device
    ranks: Ranks = ALONE

    def run(self, hidden: Tensor, gradient: Tensor) -> dict[ModuleKind, dict[str, np.ndarray]]:
        """Statistics of both modules; ``gradient`` [n, s, d] by the block's output becomes, in
        place, that by its input ``hidden`` [n, s, d]."""
        if self.adapter.parallel(self.block):
            by_output = gradient.clone()
            return {kind: self._module(kind, hidden, by_output, gradient) for kind in KINDS}
        middle = hidden.clone()
        for batch in batches(*hidden.shape[:2]):
            middle[batch] += self._added("attention", hidden[batch].to(self.device)).cpu()
        ffn = self._module("ffn", middle, gradient, gradient)
        return {"attention": self._module("attention", hidden, gradient, gradient), "ffn": ffn}

    def _added(self, kind: ModuleKind, hidden: Tensor) -> Tensor:
        return self.adapter.run(self.block, kind, hidden, self.context)

    def _module(
        self, kind: ModuleKind, hidden: Tensor, by_output: Tensor, by_input: Tensor
    ) -> dict[str, np.ndarray]:
        """Statistics of one module that read ``hidden`` and has the loss gradient ``by_output`` by
        what it adds; what that means for ``hidden`` is added to ``by_input``."""
        module = self.adapter.module(self.block, kind)
        sums = GradientSums(module)
        layers = [*module.in_proj_layers(), module.out_proj]
        for batch in batches(*hidden.shape[:2]):
            outer = by_output[batch].to(self.device)
            with torch.enable_grad(), _Watch(layers) as seen:
                leaf = hidden[batch].to(self.device).requires_grad_()
                added = self._added(kind, leaf)
            wanted = [leaf, seen.inputs[-1], *seen.outputs]
            back, by_inner, *by_layers = torch.autograd.grad(added, wanted, outer.to(added))
            for place, by_layer in enumerate(by_layers):
                sums.add_layer(place, seen.inputs[place].detach(), by_layer)
            sums.add_tokens(outer, seen.inputs[-1].detach(), by_inner)
            by_input[batch] += back.float().cpu()
        sums.gather(self.ranks)
        return sums.result()


class _Watch:
    """Records what ``layers`` read and give during a run, in their order."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self.layers = layers
        self.inputs: list[Tensor | None] = [None] * len(layers)
        self.outputs: list[Tensor | None] = [None] * len(layers)
        self._hooks = ExitStack()

    def __enter__(self) -> _Watch:
        for layer in self.layers:
            self._hooks.callback(layer.register_forward_hook(self._record).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def _record(self, layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        place = next(i for i, known in enumerate(self.layers) if known is layer)
        self.inputs[place], self.outputs[place] = inputs[0], output


class GradientSums:
    """Accumulates the gradient statistics of one module; layers are those of in_proj in order,
    then out_proj."""

    def __init__(self, module: PrunableModule) -> None:
        self.module = module
        self.layers = [*module.in_proj_layers(), module.out_proj]
        weights = [layer_matrix(layer) for layer in self.layers]
        self.totals = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        self.squares = [torch.zeros_like(total) for total in self.totals]
        self.windows = self.predicted = 0
        # the squared gradient by the output, then the effect of each unit
        self.effects = zeros_float64(1 + module.units, device=self.totals[0].device)
        self._float64 = Float64Queue()

    def add_layer(self, place: int, x: Tensor, gradient: Tensor) -> None:
        """Add a batch of what a layer read [n, s, in] and the gradient [n, s, out] of the summed
        loss by what it gave."""
        for seen, outer in zip(x.float(), gradient.float(), strict=True):
            by_weight = outer.T @ seen
            self.totals[place] += by_weight
            self.squares[place] += by_weight.square_()

    def add_tokens(self, outer: Tensor, out_proj_input: Tensor, gradient: Tensor) -> None:
        """Add a batch of gradients by the module's output [n, s, d], and of out_proj inputs and
        the gradients by them [n, s, units·w]."""
        n, s, _ = outer.shape
        self.windows += n
        self.predicted += n * (s - 1)
        output = outer.float().square().sum()
        effect = (out_proj_input.float() * gradient.float()).unflatten(-1, (self.module.units, -1))
        units = effect.sum(-1).square().sum((0, 1))
        self._float64.bring(torch.cat([output[None], units]), self.effects.add_)

    def gather(self, ranks: Ranks) -> None:
        """From now on these are the sums over the windows of all ``ranks``."""
        self._float64.finish()
        for sums in (self.totals, self.squares):
            sums[:] = [ranks.total(tensor) for tensor in sums]
        self.effects = ranks.total(self.effects)
        counts = ranks.total(torch.tensor([self.windows, self.predicted]))
        self.windows, self.predicted = counts.tolist()

    def result(self) -> dict[str, np.ndarray]:
        """Vectors per channel [units·w], and ``fisher_output`` [1]; float64."""
        shape, width = self.module.shape(), self.module.unit_width
        reduced = [self._reduced(place) for place in range(len(self.layers))]
        statistics = {}
        for name in TAYLOR:
            rows = {}
            for projection, vectors in self._projections(reduced):
                rows[f"{projection}_{name}"] = vectors[name]
            statistics[name] = in_proj_sum(rows, shape, name) + reduced[-1][name]
        self._float64.finish()
        effects = self.effects.cpu().numpy()
        statistics["fisher_output"] = effects[:1] / self.predicted
        shares = effects[1:] / (self.predicted * width)
        statistics["fisher_unit"] = shares.repeat(width)
        return statistics

    def _reduced(self, place: int) -> dict[str, np.ndarray]:
        """Taylor terms of one layer, summed over each row, or each column of out_proj. LLM-Pruner
        takes the gradient of the mean loss, and squares that of each window's mean loss."""
        weight = layer_matrix(self.layers[place]).float()
        direction = 0 if place == len(self.layers) - 1 else 1
        first = weight * self.totals[place] / self.predicted
        # the squares are of sums over the s - 1 predicted tokens of a window
        scale = self.windows / self.predicted**2
        second = weight.square() * self.squares[place] * scale
        return {
            "taylor_vector": _plain(first.sum(direction).abs()),
            "taylor_element1": _plain(first.abs().sum(direction)),
            "taylor_element2": _plain(second.sum(direction)),
        }

    def _projections(
        self, reduced: list[dict[str, np.ndarray]]
    ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """The in_proj projections by name with their rows of what their layer gave."""
        for name, projection in self.module.in_proj.items():
            place = next(i for i, layer in enumerate(self.layers) if layer is projection.layer)
            rows = projection.rows.cpu().numpy()
            yield name, {key: values[rows] for key, values in reduced[place].items()}


def _plain(tensor: Tensor) -> np.ndarray:
    return to_float64(tensor).cpu().numpy()


def _merged(
    block: BlockMeasurement, added: dict[ModuleKind, dict[str, np.ndarray]], dtype: torch.dtype
) -> BlockMeasurement:
    for kind, statistics in added.items():
        if not all(np.isfinite(values).all() for values in statistics.values()):
            raise Unsupported(
                f"The gradients overflow in {str(dtype).removeprefix('torch.')}; load the "
                "model in bfloat16 or float32."
            )
        block = block.with_statistics(kind, statistics)
    return block
