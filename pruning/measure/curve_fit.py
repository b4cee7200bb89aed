"""The loss curve of one module: out_proj fitted to its best units at a handful of widths.

Every part of a module (an expert, or the whole of it) keeps as many units, and the error of a
token is the sum over the parts that it went through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pruning.adapters.base import PrunableModule
from pruning.artifacts.measurement import CURVE_POINTS
from pruning.distributed.ranks import ALONE, Ranks
from pruning.recovery.solvers.normal_equations import DAMPINGS, damped_factor
from pruning.utils.precision import to_float64, zeros_float64

CURVE_DAMPINGS = DAMPINGS[::2]
CHOOSING = 4096
"""Probed tokens that the damping of each width is chosen on: trying all of them on all would be
most of the work."""


@dataclass(frozen=True)
class Probes:
    """The probed tokens of this rank: ``count``, which stand behind ``before`` of other ``ranks``,
    of ``total``."""

    count: int
    before: int
    total: int
    ranks: Ranks = ALONE

    def among(self, first: int) -> int:
        """How many of the ``first`` of all are here."""
        return min(max(first - self.before, 0), self.count)


@dataclass(frozen=True)
class ProbedPart:
    """A module, or one expert of it.

    ``gram`` [m, m], float64: of the tokens to fit on, m = units·w; ``scale``: what a relative
    damping is multiplied with; ``importance`` [units], CPU. For the part's probed tokens [t], in
    the order of the text: their ``places`` among all probes, what out_proj read (``inputs`` [t, m])
    and the loss gradient by it (``by_channel`` [t, m]).
    """

    gram: Tensor
    scale: float
    importance: Tensor
    places: Tensor
    inputs: Tensor
    by_channel: Tensor

    def effects(
        self, order: Tensor, kept: list[int], dampings: Sequence[float], probes: int
    ) -> Tensor:
        """``g·δ`` [1 + dampings, kept, probes] of keeping the first ``kept`` channels (ascending)
        of ``order``, δ what the others gave less the repair; the first row is without
        a repair. Only the first ``probes`` of the part are taken.

        With ``G + λI = L Lᵀ`` in that order the repair of the first k is
        ``xₖᵀ (Lₖ Lₖᵀ)⁻¹ Lₖ (L[k:, :k])ᵀ W[k:]`` for a token x: one factor serves every k.
        """
        here = order.to(self.inputs.device)
        inputs, by_channel = self.inputs[:probes, here], self.by_channel[:probes, here]
        there = order.to(self.gram.device)
        gram = self.gram[there][:, there]
        lost = _lost(inputs, by_channel, kept)
        effects = [-lost]
        for damping in dampings:
            factor = damped_factor(gram, damping * self.scale) if self.scale > 0.0 else None
            repaired = 0.0
            if factor is not None:
                repaired = _repaired(inputs, by_channel, factor.to(inputs), kept)
            effects.append(repaired - lost)
        return to_float64(torch.stack(effects))


def loss_curves(
    module: PrunableModule, parts: Sequence[ProbedPart], probes: Probes
) -> dict[str, np.ndarray]:
    """Nats per token by curve; see :mod:`pruning.artifacts.measurement` for names and lengths.
    ``probes``: tokens that were probed, of all parts together.

    Every rank factorises the same Gram matrix, for its own probes; their sums are added up."""
    orders = [_orders(module, part.importance) for part in parts]
    return {
        name: _curve(
            [
                (part, _channels(module, order[name].units))
                for part, order in zip(parts, orders, strict=True)
            ],
            [count * module.unit_width for count in first.counts],
            probes,
        )
        for name, first in orders[0].items()
    }


_Ordered = Sequence[tuple[ProbedPart, Tensor]]
"""Parts, and the channels of each, best first."""


def _curve(parts: _Ordered, kept: list[int], probes: Probes) -> np.ndarray:
    """What it costs to keep the first ``kept`` channels of each part: ``½ E[(g·δ)²]`` on the
    probes, with the best damping for each of them [kept]."""
    losses = _losses(parts, kept, CURVE_DAMPINGS, probes, min(probes.total, CHOOSING))
    if probes.total > CHOOSING:
        best = losses.argmin(0).unique().tolist()
        dampings = [CURVE_DAMPINGS[place - 1] for place in best if place > 0]
        losses = _losses(parts, kept, dampings, probes, probes.total)
    curve = losses.amin(0).cpu().numpy()
    # fewer units never cost less
    return np.maximum.accumulate(curve[::-1])[::-1]


def _losses(
    parts: _Ordered, kept: list[int], dampings: Sequence[float], probes: Probes, first: int
) -> Tensor:
    """The same without a repair and with each of the ``dampings``, on the ``first`` probes only
    [1 + dampings, kept]."""
    mine = probes.among(first)
    size = (1 + len(dampings), len(kept), mine)
    effects = zeros_float64(*size, device=parts[0][0].inputs.device)
    for part, channels in parts:
        here = int((part.places < mine).sum())  # in the order of the text
        added = part.effects(channels, kept, dampings, here)
        effects.index_add_(2, part.places[:here].to(effects.device), added)
    return 0.5 * probes.ranks.total(effects.square().sum(2)) / first


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
    missing, repaired, end = torch.zeros_like(inputs), [], inputs.shape[1]
    for start in reversed(kept):
        missing[:, :start].addmm_(by_channel[:, start:end], factor[start:end, :start])
        repaired.append((whitened[:, :start] * missing[:, :start]).sum(1))
        end = start
    return torch.stack(repaired[::-1])


@dataclass(frozen=True)
class _Order:
    """Units, best first, and how many of them each point of the curve keeps."""

    units: Tensor
    counts: list[int]


def _orders(module: PrunableModule, importance: Tensor) -> dict[str, _Order]:
    """By curve: the units of a part, most important first."""
    units, groups = len(importance), module.groups
    best = importance.argsort(descending=True, stable=True)
    if module.kind == "ffn":
        counts = [round(units * k / CURVE_POINTS) for k in range(CURVE_POINTS + 1)]
        return {"expected_loss": _Order(best, counts)}
    orders = {"expected_loss": _Order(best, list(range(units + 1)))}
    per_group = units // groups
    if per_group > 1:
        table = importance.reshape(groups, per_group)
        inside = table.argsort(dim=1, descending=True, stable=True)
        even = (inside + torch.arange(groups)[:, None] * per_group).T.flatten()
        orders["query_expected_loss"] = _Order(even, list(range(0, units + 1, groups)))
        whole = table.sum(1).argsort(descending=True, stable=True)
        members = (whole[:, None] * per_group + torch.arange(per_group)).flatten()
        counts = list(range(0, units + 1, per_group))
        orders["kv_group_expected_loss"] = _Order(members, counts)
    return orders


def _channels(module: PrunableModule, units: Tensor) -> Tensor:
    return (units[:, None] * module.unit_width + torch.arange(module.unit_width)).flatten()
