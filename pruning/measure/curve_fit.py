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
from pruning.recovery.solvers.elimination import LIGHT, PrimalElimination, in_turn
from pruning.recovery.solvers.normal_equations import DAMPINGS, damped_factor
from pruning.utils.precision import to_float64, zeros_float64

CURVE_DAMPINGS = DAMPINGS[::2]
_CURVE_ROUNDS = 4 * (CURVE_POINTS - 1)
"""So many rounds of an elimination, that every point of the curve is at the end of one."""
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
    damping is multiplied with; ``weight`` [m, d]: columns of out_proj; ``importance`` [units],
    CPU. For the part's probed tokens [t], in
    the order of the text: their ``places`` among all probes, what out_proj read (``inputs`` [t, m])
    and the loss gradient by it (``by_channel`` [t, m]).
    """

    gram: Tensor
    scale: float
    weight: Tensor
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
    module: PrunableModule, parts: Sequence[ProbedPart], probes: Probes, eliminates: bool = False
) -> dict[str, np.ndarray]:
    """Nats per token by curve; see :mod:`pruning.artifacts.measurement` for names and lengths.
    ``probes``: tokens that were probed, of all parts together. ``eliminates``: units go by
    elimination under the refit instead of by importance.

    Every rank factorises the same Gram matrix, for its own probes; their sums are added up."""
    ordered = _eliminated if eliminates else _orders
    orders = probes.ranks.from_first(lambda: [ordered(module, part) for part in parts])
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


def _orders(module: PrunableModule, part: ProbedPart) -> dict[str, _Order]:
    """By curve: the units of a part, most important first."""
    importance, per_group = part.importance, _per_group(module)

    def best(scores: Tensor) -> Tensor:
        return scores.argsort(dim=-1, descending=True, stable=True)

    orders = {"expected_loss": best(importance)}
    if per_group > 1:
        table = importance.reshape(-1, per_group)
        first = torch.arange(len(table))[:, None] * per_group
        orders["query_expected_loss"] = (best(table) + first).T.flatten()
        orders["kv_group_expected_loss"] = _members(best(table.sum(1)), per_group)
    return _counted(module, orders)


def _eliminated(module: PrunableModule, part: ProbedPart) -> dict[str, _Order]:
    """By curve: the units of a part, the one that goes last first."""
    ridge, factor = LIGHT * part.scale, None
    if part.scale > 0.0:
        factor = damped_factor(part.gram, ridge)
    inverse = None if factor is None else torch.cholesky_inverse(factor)
    weight = to_float64(part.weight).to(part.gram.device)

    def last(size: int = 1, **how: int) -> Tensor:
        elimination = (
            inverse if inverse is None else PrimalElimination(inverse, weight, weight, ridge)
        )
        units, width = len(part.importance) // size, size * module.unit_width
        return in_turn(elimination, units, width, rounds=_CURVE_ROUNDS, **how).argsort().flip(0)

    per_group = _per_group(module)
    keep = round(len(part.importance) / CURVE_POINTS) if module.kind == "ffn" else 0
    orders = {"expected_loss": last(keep=keep)}
    if per_group > 1:
        orders["query_expected_loss"] = last(parts=module.groups)
        orders["kv_group_expected_loss"] = _members(last(per_group), per_group)
    return _counted(module, orders)


def _counted(module: PrunableModule, orders: dict[str, Tensor]) -> dict[str, _Order]:
    """The ``orders`` with what each point of their curves keeps."""
    units = len(orders["expected_loss"])
    if module.kind == "ffn":
        counts = [round(units * k / CURVE_POINTS) for k in range(CURVE_POINTS + 1)]
        return {name: _Order(order, counts) for name, order in orders.items()}
    steps = {"query_expected_loss": module.groups, "kv_group_expected_loss": _per_group(module)}
    return {
        name: _Order(order, list(range(0, units + 1, steps.get(name, 1))))
        for name, order in orders.items()
    }


def _per_group(module: PrunableModule) -> int:
    """Heads of a key/value group; 1 of an FFN."""
    return module.units // module.groups if module.kind == "attention" else 1


def _members(groups: Tensor, per_group: int) -> Tensor:
    """The heads of ``groups``, in their order."""
    return (groups[:, None] * per_group + torch.arange(per_group)).flatten()


def _channels(module: PrunableModule, units: Tensor) -> Tensor:
    return (units[:, None] * module.unit_width + torch.arange(module.unit_width)).flatten()
