"""Expected loss of keeping fewer units of a module, for every module, before anything is cut.

For a handful of widths level 2 is fitted to the best units, as the refit will do, on one half of
the windows; on the other half the error δ it leaves is weighed with the loss gradient g at the
module's output: ``½ E[(g·δ)²]`` nats per token, the divergence to second order. Token by token,
because large errors and large gradients meet at the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.adapters.base import DepthTwo, ModelAdapter, adapter_for
from pruning.adapters.projection import layer_matrix
from pruning.corpora.windows import Windows
from pruning.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.least_squares import DAMPINGS, damped_factor, sum_dtype
from pruning.measure.output_gradients import output_gradients
from pruning.measurement import CURVE_POINTS, Measurement
from pruning.placement import device_of, resident
from pruning.shape import KINDS, ModuleKind
from pruning.streaming import Tap, batches, block_contexts, embed

PROBES = 32
"""Windows at most that the gradients are taken on."""


def with_curves(
    measurement: Measurement,
    model: nn.Module,
    windows: Windows,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Measurement:
    """``measurement`` of ``model`` with the expected losses added (names in
    :mod:`pruning.measurement`), from ``windows`` (ids [n, s], in families).

    Memory: the residual stream [n, s, d], the probes' gradients by every module's output
    (bfloat16), one module's Gram matrix and its probed inputs. Raises Cancelled.
    """
    adapter = adapter_for(model.config)
    blocks = adapter.blocks(model)
    measured = list(measurement.blocks)
    fit_ids, probe_ids = _halves(windows)
    hear = {"progress": progress, "should_cancel": should_cancel}
    gradients = output_gradients(model, adapter, probe_ids, windows.seed, **hear)
    with torch.no_grad():
        contexts = block_contexts(model, adapter, fit_ids.shape[1])
        streams = [embed(model, adapter, ids) for ids in (fit_ids, probe_ids)]
        for index, (block, context) in enumerate(zip(blocks, contexts, strict=True)):
            stop_if(should_cancel)
            with resident(block):
                by_kind = {kind: gradients.pop((index, kind)) for kind in KINDS}
                for kind, found in _block_curves(adapter, block, context, streams, by_kind):
                    measured[index] = measured[index].with_statistics(kind, found)
            progress(Progress("measure", index + 1, len(blocks), f"Expected loss, block {index}"))
    return replace(measurement, blocks=tuple(measured))


def _block_curves(
    adapter: ModelAdapter,
    block: nn.Module,
    context: Mapping[str, Any],
    streams: list[Tensor],
    gradients: Mapping[ModuleKind, Tensor],
) -> Iterator[tuple[ModuleKind, dict[str, np.ndarray]]]:
    """Curves of both modules; ``streams`` (to fit, to probe) [n, s, d] advance in place."""
    device = device_of(block)
    entering = [s.clone() for s in streams] if adapter.parallel(block) else streams
    for kind in KINDS:
        module = adapter.module(block, kind)
        task = _Curves(module, gradients[kind], device)
        for place, stream in enumerate(streams):
            for batch in batches(*stream.shape[:2]):
                part = entering[place][batch].to(device)
                with Tap(module) as tap:
                    added = adapter.run(block, kind, part, context)
                (task.fit if place == 0 else task.probe)(tap.level2_input)
                stream[batch] += added.to(stream.device)
        yield kind, task.result()


def _halves(windows: Windows) -> tuple[Tensor, Tensor]:
    """Even families to fit on; of the odd ones first the texts, then their copies, to probe."""
    families = windows.ids.unflatten(0, (-1, windows.family))
    odd = families[1::2] if len(families) > 1 else families
    fit = families[::2].flatten(0, 1)
    return fit, odd.transpose(0, 1).flatten(0, 1)[:PROBES]


@dataclass(frozen=True)
class _Order:
    """Units, best first, and how many of them each point of the curve keeps."""

    units: Tensor
    counts: list[int]


class _Curves:
    """The work on one module."""

    def __init__(self, module: DepthTwo, gradient: Tensor, device: torch.device) -> None:
        self.module, self.gradient, self.device = module, gradient.flatten(0, 1), device
        size = module.units * module.unit_width
        self.gram = torch.zeros(size, size, dtype=sum_dtype(device), device=device)
        self.probed: list[Tensor] = []

    def fit(self, values: Tensor) -> None:
        """Add level-2 inputs [n, s, units·w] of the fitted half."""
        flat = values.flatten(0, 1).float()
        self.gram += flat.T @ flat

    def probe(self, values: Tensor) -> None:
        """Add those of the probed half."""
        self.probed.append(values.flatten(0, 1).float())

    def result(self) -> dict[str, np.ndarray]:
        """Nats per token by policy; see :mod:`pruning.measurement` for lengths."""
        solver = "cpu" if self.gram.device.type == "mps" else self.gram.device
        self.gram, self.seen = self.gram.to(solver, torch.float64), torch.cat(self.probed)
        self.weight = layer_matrix(self.module.level2).to(self.gram.device, torch.float64).T
        importance = self.gram.diagonal() * self.weight.square().sum(1)
        importance = importance.reshape(self.module.units, -1).sum(1).cpu()
        self.by_output = self.gradient.to(self.device).float()
        found, damping = {}, None
        for name, order in _orders(self.module, importance).items():
            losses = [0.0]
            for count in reversed(order.counts[:-1]):
                loss, damping = self._loss(order.units[:count], damping)
                # fewer units never cost less
                losses.append(max(loss, losses[-1]))
            found[name] = np.array(losses[::-1])
        return found

    def _loss(self, units: Tensor, damping: float | None) -> tuple[float, float | None]:
        """Expected loss of keeping ``units``, and the damping. None: the best one is looked for,
        which is done once for each module, where it loses least."""
        kept = _channels(self.module, units).to(self.gram.device)
        gone = torch.ones(len(self.gram), dtype=torch.bool, device=self.gram.device)
        gone[kept] = False
        unfitted = self._probe(kept, gone, None)
        scale = self.gram.diagonal().mean().item()
        if len(kept) == 0 or scale <= 0.0:
            return unfitted, damping
        wanted, tried = self.gram[kept][:, gone] @ self.weight[gone], {}
        for candidate in DAMPINGS if damping is None else (damping,):
            factor = damped_factor(self.gram[kept][:, kept], candidate * scale)
            if factor is not None:
                change = torch.cholesky_solve(wanted, factor)
                tried[candidate] = self._probe(kept, gone, change)
        best = min(tried, key=tried.get, default=None)
        return min(unfitted, tried.get(best, unfitted)), damping or best

    def _probe(self, kept: Tensor, gone: Tensor, change: Tensor | None) -> float:
        """``½ E[(g·δ)²]`` on the probes, δ what the removed channels gave less the repair."""
        error = -self.weight * gone[:, None]
        if change is not None:
            error[kept] = change
        delta = self.seen @ error.to(self.seen)
        return 0.5 * (delta * self.by_output).sum(-1).double().square().mean().item()


def _orders(module: DepthTwo, importance: Tensor) -> Mapping[str, _Order]:
    """By curve: units, most important first."""
    units, groups = module.units, module.groups
    best = importance.argsort(descending=True, stable=True)
    if module.kind == "ffn":
        counts = [round(units * k / CURVE_POINTS) for k in range(CURVE_POINTS + 1)]
        return {"expected_loss": _Order(best, counts)}
    found = {"expected_loss": _Order(best, list(range(units + 1)))}
    per_group = units // groups
    if per_group > 1:
        table = importance.reshape(groups, per_group)
        inside = table.argsort(dim=1, descending=True, stable=True)
        even = (inside + torch.arange(groups)[:, None] * per_group).T.flatten()
        found["query_expected_loss"] = _Order(even, list(range(0, units + 1, groups)))
        whole = table.sum(1).argsort(descending=True, stable=True)
        members = (whole[:, None] * per_group + torch.arange(per_group)).flatten()
        counts = list(range(0, units + 1, per_group))
        found["kv_group_expected_loss"] = _Order(members, counts)
    return found


def _channels(module: DepthTwo, units: Tensor) -> Tensor:
    return (units[:, None] * module.unit_width + torch.arange(module.unit_width)).flatten()
