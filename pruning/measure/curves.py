"""Refit errors: how well level 2 can still do when only the best units of a module are kept.

One Cholesky factor gives the error of *every* prefix of an order of channels: with
``L Lᵀ = XᵀX`` (channels in that order) and ``Z = L⁻¹ XᵀX W``, least squares on the first k
channels explains ``‖Z[:k]‖²`` of ``‖X W‖²``, for the factor of a leading block is the leading
block of the factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pruning.adapters.base import DepthTwo, adapter_for
from pruning.adapters.projection import layer_matrix
from pruning.corpora.windows import Windows
from pruning.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.least_squares import damped_factor, sum_dtype
from pruning.measurement import CURVE_POINTS, BlockMeasurement, Measurement, ModuleMeasurement
from pruning.shape import KINDS
from pruning.streaming import batches, block_contexts, embed, run_tapped

_RIDGE = 1e-6
_LEAST_SHARE = 0.125


def with_curves(
    measurement: Measurement,
    model: nn.Module,
    windows: Windows,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Measurement:
    """``measurement`` of ``model`` with the refit errors over ``windows`` (ids [n, s]) added
    (names in :mod:`pruning.measurement`).

    Memory: the residual stream [n, s, d] and one module's Gram matrix. Raises Cancelled.
    """
    adapter = adapter_for(model.config)
    blocks = adapter.blocks(model)
    measured = list(measurement.blocks)
    with torch.no_grad():
        contexts = block_contexts(model, adapter, windows.ids.shape[1])
        hidden = embed(model, adapter, windows.ids)
        for index, (block, context) in enumerate(zip(blocks, contexts, strict=True)):
            stop_if(should_cancel)
            entering = hidden.clone() if adapter.parallel else None
            for kind in KINDS:
                module = adapter.module(block, kind)
                gram = _GramSum(module, model.device)
                for batch in batches(*hidden.shape[:2]):
                    source = hidden if entering is None else entering
                    part = source[batch].to(model.device)
                    gram.add(run_tapped(adapter, block, module, part, context).level2_input)
                    hidden[batch] += adapter.run(block, kind, part, context).to(hidden.device)
                measured[index] = _merged(measured[index], module, gram.curves())
            progress(Progress("measure", index + 1, len(blocks), f"Refit errors of block {index}"))
    return replace(measurement, blocks=tuple(measured))


class _GramSum:
    """Gram matrix of a module's level-2 input, and the errors that follow from it."""

    def __init__(self, module: DepthTwo, device: torch.device) -> None:
        self.module = module
        size = module.units * module.unit_width
        self.gram = torch.zeros(size, size, dtype=sum_dtype(device), device=device)
        self.count = 0

    def add(self, values: Tensor) -> None:
        flat = values.reshape(-1, values.shape[-1]).float()
        self.count += flat.shape[0]
        self.gram += flat.T @ flat

    def curves(self) -> dict[str, np.ndarray]:
        """Error per token by policy; see :mod:`pruning.measurement` for lengths."""
        device = "cpu" if self.gram.device.type == "mps" else self.gram.device
        gram = self.gram.to(device, torch.float64)
        weight = layer_matrix(self.module.level2).to(device, torch.float64).T
        importance = gram.diagonal() * weight.square().sum(1)
        importance = importance.reshape(self.module.units, -1).sum(1).cpu()
        found = {}
        for name, (order, counts) in _orders(self.module, importance).items():
            errors = prefix_errors(gram, weight, order.to(device), self.count)
            found[name] = errors[torch.as_tensor(counts) * self.module.unit_width].numpy()
        return found


def _orders(module: DepthTwo, importance: Tensor) -> Mapping[str, tuple[Tensor, list[int]]]:
    """By curve: channels, most important first, and how many units each point keeps."""
    units, groups = module.units, module.groups
    best = importance.argsort(descending=True, stable=True)
    if module.kind == "ffn":
        counts = [round(units * k / CURVE_POINTS) for k in range(CURVE_POINTS + 1)]
        return {"refit_error": (best, counts)}
    found = {"refit_error": (_channels(module, best), list(range(units + 1)))}
    per_group = units // groups
    if per_group > 1:
        table = importance.reshape(groups, per_group)
        inside = table.argsort(dim=1, descending=True, stable=True)
        even = (inside + torch.arange(groups)[:, None] * per_group).T.flatten()
        found["query_refit_error"] = (_channels(module, even), list(range(0, units + 1, groups)))
        whole = table.sum(1).argsort(descending=True, stable=True)
        members = (whole[:, None] * per_group + torch.arange(per_group)).flatten()
        counts = list(range(0, units + 1, per_group))
        found["kv_group_refit_error"] = (_channels(module, members), counts)
    return found


def _channels(module: DepthTwo, units: Tensor) -> Tensor:
    return (units[:, None] * module.unit_width + torch.arange(module.unit_width)).flatten()


def prefix_errors(gram: Tensor, weight: Tensor, order: Tensor, tokens: int) -> Tensor:
    """Mean squared error [m + 1] (CPU, float64) of ``X W`` per token, summed over outputs, when
    only the first k of the channels in ``order`` [m] are kept and level 2 is fitted to them.

    ``gram`` [m, m] = XᵀX over ``tokens`` tokens, ``weight`` [m, out]. What is fitted to few
    tokens does worse on others: the error on the fitted ones is multiplied by Akaike's final
    prediction error, (n + k) / (n - k); never more than without a fit.
    """
    gram, weight = gram[order][:, order], weight[order]
    size = len(order)
    scale = gram.diagonal().mean()
    if scale <= 0.0:
        return torch.zeros(size + 1, dtype=torch.float64)
    outer = gram * (weight @ weight.T)
    # lost without a fit: sums over the lower right corners of ``outer``
    corners = outer.flip(0, 1).cumsum(0).cumsum(1).diagonal().flip(0)
    unfitted = torch.cat([corners, corners.new_zeros(1)]).clamp_min(0.0)
    factor = damped_factor(gram, _RIDGE * scale.item())
    if factor is None:
        return (unfitted / tokens).cpu()
    explained = torch.linalg.solve_triangular(factor, gram @ weight, upper=False).square().sum(1)
    left = explained.sum() - torch.cat([explained.new_zeros(1), explained.cumsum(0)])
    kept = torch.arange(size + 1, dtype=gram.dtype, device=gram.device)
    few = (tokens + kept) / (tokens - kept).clamp_min(_LEAST_SHARE * tokens)
    return (torch.minimum(left.clamp_min(0.0) * few, unfitted) / tokens).cpu()


def _merged(
    block: BlockMeasurement, module: DepthTwo, curves: Mapping[str, np.ndarray]
) -> BlockMeasurement:
    statistics = dict(block.module(module.kind).statistics)
    for name, values in curves.items():
        statistics[name] = values.astype(np.float32)
        statistics[name].setflags(write=False)
    return replace(block, **{module.kind: ModuleMeasurement(statistics)})
