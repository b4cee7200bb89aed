"""Expected loss of keeping fewer units of a module, for every module, before anything is cut.

For a handful of widths level 2 is fitted to the best units, as the refit will do, on one half of
the windows; on the other half the error δ it leaves is weighed with the loss gradient g at the
module's output: ``½ E[(g·δ)²]`` nats per token, the divergence to second order. Token by token,
because large errors and large gradients meet at the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, PrunableModule, adapter_for
from pruning.adapters.projection import layer_matrix
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.measurement import CURVE_POINTS, Measurement
from pruning.artifacts.shapes import KINDS, ModuleKind
from pruning.data.windows import Windows
from pruning.measure.output_gradients import output_gradients
from pruning.models.execution.blockwise import Part, Tap, batches, block_contexts, embed
from pruning.models.execution.offload import device_of, resident
from pruning.models.limits import probe_token_bytes, probe_windows
from pruning.recovery.solvers.gram import gram
from pruning.recovery.solvers.normal_equations import DAMPINGS, Stopwatch, damped_factor, sum_dtype

CURVE_DAMPINGS = DAMPINGS[::2]
CHOOSING = 4096
"""Probed tokens that the damping of each width is chosen on: trying all of them on all would be
most of the work."""


def with_loss_curves(
    measurement: Measurement,
    model: nn.Module,
    windows: Windows,
    *,
    products: torch.dtype | None = None,
    solves: Stopwatch | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Measurement:
    """``measurement`` of ``model`` with the expected losses added (names in
    :mod:`pruning.artifacts.measurement`), from ``windows`` (ids [n, s], in families), its modules
    run with ``products`` of that format (None: the weights'). ``solves`` counts what is not a pass.

    Memory: the residual stream [n, s, d], one module's Gram matrix and its probed inputs, and
    what :func:`pruning.models.limits.probe_windows` bounds: the probes' streams between the
    blocks and gradients by every module's output. Raises Cancelled.
    """
    adapter = adapter_for(model.config).with_autocast(products)
    blocks = adapter.blocks(model)
    measured = list(measurement.blocks)
    width = model.get_input_embeddings().weight.shape[1]
    token_bytes = probe_token_bytes(len(blocks), width, model.dtype.itemsize)
    fit_ids, probe_ids = _halves(windows, token_bytes)
    callbacks = {"progress": progress, "should_cancel": should_cancel}
    solves = solves or Stopwatch()
    gradients = output_gradients(model, adapter, probe_ids, windows.seed, **callbacks)
    with torch.no_grad():
        contexts = block_contexts(model, adapter, fit_ids.shape[1])
        streams = [embed(model, adapter, ids) for ids in (fit_ids, probe_ids)]
        for index, (block, context) in enumerate(zip(blocks, contexts, strict=True)):
            stop_if(should_cancel)
            with resident(block, then=blocks[index + 1 : index + 2]):
                by_kind = {kind: gradients.pop((index, kind)) for kind in KINDS}
                for kind, task in _block_loss_curves(adapter, block, context, streams, by_kind):
                    with solves:
                        found = task.result()
                    measured[index] = measured[index].with_statistics(kind, found)
            progress(Progress("measure", index + 1, len(blocks), f"Expected loss, block {index}"))
    return replace(measurement, blocks=tuple(measured))


def _block_loss_curves(
    adapter: ModelAdapter,
    block: nn.Module,
    context: Mapping[str, Any],
    streams: list[Tensor],
    gradients: Mapping[ModuleKind, Tensor],
) -> Iterator[tuple[ModuleKind, _Curves]]:
    """What is to be worked out for both modules; ``streams`` (to fit, to probe) [n, s, d] advance
    in place."""
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
                (task.fit if place == 0 else task.probe)(tap, part.shape[:2].numel())
                stream[batch] += added.to(stream.device)
        yield kind, task


def _halves(windows: Windows, token_bytes: int) -> tuple[Tensor, Tensor]:
    """Even families to fit on; of the odd ones first the texts, then their copies, to probe, in
    so many bytes per token."""
    families = windows.ids.unflatten(0, (-1, windows.family))
    odd = families[1::2] if len(families) > 1 else families
    fit = families[::2].flatten(0, 1)
    probes = probe_windows(len(families), windows.ids.shape[1], token_bytes)
    return fit, odd.transpose(0, 1).flatten(0, 1)[:probes]


@dataclass(frozen=True)
class _Order:
    """Units, best first, and how many of them each point of the curve keeps."""

    units: Tensor
    counts: list[int]


class _Curves:
    """The work on one module. Its parts are the experts, or the whole of it: every part keeps as
    many units, and a token's error is the sum over the parts that it went through."""

    def __init__(self, module: PrunableModule, gradient: Tensor, device: torch.device) -> None:
        self.module, self.gradient, self.device = module, gradient.flatten(0, 1), device
        self.parts = [_PartCurve(module, device) for _ in range(module.experts)]
        self.probes = 0

    def fit(self, tap: Tap, _tokens: int) -> None:
        """Add what one run on the fitted half showed."""
        for part, seen in zip(self.parts, tap.parts(), strict=True):
            part.fit(seen)

    def probe(self, tap: Tap, tokens: int) -> None:
        """Add one of the probed half, of so many tokens."""
        for part, seen in zip(self.parts, tap.parts(), strict=True):
            part.probe(seen, self.probes)
        self.probes += tokens

    def result(self) -> dict[str, np.ndarray]:
        """Nats per token by policy; see :mod:`pruning.artifacts.measurement` for lengths."""
        experts = self.module.experts
        by_output = self.gradient.to(self.device).float()
        mean = sum(part.count for part in self.parts) / experts
        weights = layer_matrix(self.module.out_proj).T.chunk(experts)
        for part, weight in zip(self.parts, weights, strict=True):
            part.prepare(weight, by_output, mean)
        orders = [_orders(self.module, part.importance) for part in self.parts]
        return {
            name: self._losses([mine[name].units for mine in orders], order.counts)
            for name, order in orders[0].items()
        }

    def _losses(self, orders: list[Tensor], counts: list[int]) -> np.ndarray:
        """Expected loss of keeping the first ``counts`` units of each part's order: ``½ E[(g·δ)²]``
        on the probes, with the best damping for each count [counts]."""
        some = self._tried(orders, counts, CURVE_DAMPINGS, min(self.probes, CHOOSING))
        if self.probes > CHOOSING:
            best = some.argmin(0).unique().tolist()
            dampings = [CURVE_DAMPINGS[place - 1] for place in best if place > 0]
            some = self._tried(orders, counts, dampings, self.probes)
        found = some.amin(0).cpu().numpy()
        # fewer units never cost less
        return np.maximum.accumulate(found[::-1])[::-1]

    def _tried(
        self, orders: list[Tensor], counts: list[int], dampings: Sequence[float], probes: int
    ) -> Tensor:
        """The same without a repair and with each of the ``dampings``, on the first so many probes
        [1 + dampings, counts]."""
        size = (1 + len(dampings), len(counts), probes)
        effects = torch.zeros(size, dtype=torch.float64, device=self.device)
        kept = [count * self.module.unit_width for count in counts]
        for part, units in zip(self.parts, orders, strict=True):
            here = int((part.places < probes).sum())  # in the order of the text
            found = part.effects(_channels(self.module, units), kept, dampings, here)
            effects.index_add_(2, part.places[:here], found)
        return 0.5 * effects.square().mean(2)


class _PartCurve:
    """A module, or one expert of it: its Gram matrix and its probes. What an expert gives is
    weighed with its share of the token."""

    def __init__(self, module: PrunableModule, device: torch.device) -> None:
        size = module.units * module.unit_width // module.experts
        self.gram = torch.zeros(size, size, dtype=sum_dtype(device), device=device)
        self.count = 0
        self.probed: list[Tensor] = []
        self.probed_places: list[Tensor] = []
        self.units = module.units // module.experts

    def fit(self, seen: Part) -> None:
        flat = _weighed(seen)
        self.count += len(flat)
        self.gram += gram([flat], flat.shape[1], self.gram.dtype, flat.device)

    def probe(self, seen: Part, first: int) -> None:
        """``first``: tokens that were probed before."""
        flat = _weighed(seen)
        places = seen.tokens
        if places is None:
            places = torch.arange(len(flat), device=flat.device)
        self.probed.append(flat)
        self.probed_places.append(places + first)

    def prepare(self, weight: Tensor, by_output: Tensor, mean: float) -> None:
        """``weight`` [units·w, d] of level 2, gradients ``by_output`` [probes, d], tokens of a
        part on average."""
        solver = "cpu" if self.gram.device.type == "mps" else self.gram.device
        self.gram = self.gram.to(solver, torch.float64)
        self.seen, self.places = torch.cat(self.probed), torch.cat(self.probed_places)
        weight = weight.to(self.seen)
        self.by_channel = by_output[self.places] @ weight.T
        # the same ridge for all experts: see pruning.recovery.solvers.expert_fit
        self.scale = self.gram.diagonal().mean().item() * mean / max(self.count, 1)
        importance = self.gram.diagonal() * weight.to(self.gram).square().sum(1)
        self.importance = importance.reshape(self.units, -1).sum(1).cpu()

    def effects(
        self, order: Tensor, kept: list[int], dampings: Sequence[float], probes: int
    ) -> Tensor:
        """``g·δ`` [1 + dampings, kept, probes] of keeping the first ``kept`` channels (ascending)
        of ``order``, δ what the others gave less the repair; first without any. Of the part's
        probes, the first so many.

        With ``G + λI = L Lᵀ`` in that order the repair of the first k is
        ``xₖᵀ (Lₖ Lₖᵀ)⁻¹ Lₖ (L[k:, :k])ᵀ W[k:]`` for a token x: one factor serves every k.
        """
        here = order.to(self.seen.device)
        inputs, by_channel = self.seen[:probes, here], self.by_channel[:probes, here]
        there = order.to(self.gram.device)
        gram = self.gram[there][:, there]
        lost = _lost(inputs, by_channel, kept)
        found = [-lost]
        for damping in dampings:
            factor = damped_factor(gram, damping * self.scale) if self.scale > 0.0 else None
            repaired = 0.0
            if factor is not None:
                repaired = _repaired(inputs, by_channel, factor.to(inputs), kept)
            found.append(repaired - lost)
        return torch.stack(found).double()


def _lost(inputs: Tensor, by_channel: Tensor, kept: list[int]) -> Tensor:
    """What the channels after the first ``kept`` gave, times g [kept, t]; inputs and ``W g``
    [t, channels] in order."""
    edges = [*kept, inputs.shape[1]]
    parts = [
        (inputs[:, start:end] * by_channel[:, start:end]).sum(1)
        for start, end in zip(edges, edges[1:], strict=False)
    ]
    return torch.stack(parts).flip(0).cumsum(0).flip(0)


def _repaired(inputs: Tensor, by_channel: Tensor, factor: Tensor, kept: list[int]) -> Tensor:
    """What the first ``kept`` channels give more after the repair, times g [kept, t]."""
    whitened = torch.linalg.solve_triangular(factor, inputs.T, upper=False).T
    missing, found, end = torch.zeros_like(inputs), [], inputs.shape[1]
    for start in reversed(kept):
        missing[:, :start].addmm_(by_channel[:, start:end], factor[start:end, :start])
        found.append((whitened[:, :start] * missing[:, :start]).sum(1))
        end = start
    return torch.stack(found[::-1])


def _weighed(seen: Part) -> Tensor:
    """Level-2 inputs [t, units·w] as the module's output depends on them."""
    values = seen.out_proj_input.float()
    return values if seen.shares is None else values * seen.shares[:, None]


def _orders(module: PrunableModule, importance: Tensor) -> Mapping[str, _Order]:
    """By curve: units of a part, most important first."""
    units, groups = len(importance), module.groups
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


def _channels(module: PrunableModule, units: Tensor) -> Tensor:
    return (units[:, None] * module.unit_width + torch.arange(module.unit_width)).flatten()
