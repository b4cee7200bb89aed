"""Which inputs of a layer the others can make up for: greedy elimination under the refit.

``‖X W − T‖² + λ‖W − W_present‖²`` has its least value at weights W, with ``A = (G + λI)⁻¹``. Where
the channels of a unit u may no longer be used it grows by ``tr(W_uᵀ A_uu⁻¹ W_u)``, of which
``λ‖W_present,u‖²`` is the price of the prior alone and is taken off; without any correlation that
is ``G_uu ‖W_u‖²``, the exact second moment. The units that lose least go, A and W are brought up to
date for the others, and so on: a unit is dear as soon as those that could stand in for it are gone.

Source: Hassibi and Stork, NeurIPS 1992 (Optimal Brain Surgeon); for units of several channels
Kurtic et al., NeurIPS 2023 (ZipLM). The ridge toward the present weights is ours.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LIGHT = 0.1
"""Relative ridge under which units are chosen."""
ROUNDS = 16
"""Units go in about so many rounds, the costs taken anew before each."""


class Elimination(Protocol):
    """The inputs of a layer that can still be used."""

    present: Tensor

    def costs(self, width: int) -> Tensor:
        """What each unit of ``width`` channels that is left is worth, as squared error over all
        tokens."""
        ...

    def remove(self, channels: Tensor) -> None:
        """Go on without these, given by their places among those left."""
        ...


@dataclass
class PrimalElimination:
    """By the inverse ``inverse`` [m, m] of the damped Gram matrix; ``weight`` and ``present``
    [m, out], all of the channels left."""

    inverse: Tensor
    weight: Tensor
    present: Tensor
    ridge: float

    def costs(self, width: int) -> Tensor:
        return _costs(_diagonal_blocks(self.inverse, width), self.weight, self.present, self.ridge)

    def remove(self, channels: Tensor) -> None:
        left = _others(channels, len(self.weight))
        gone, columns = self.inverse[channels], self.inverse[left][:, channels]
        rows = torch.cat([columns.T, self.weight[channels]], dim=1)
        update = torch.linalg.solve(gone[:, channels], rows)
        self.inverse = self.inverse[left][:, left].addmm_(columns, update[:, : len(left)], alpha=-1)
        self.weight = self.weight[left].addmm_(columns, update[:, len(left) :], alpha=-1)
        self.present = self.present[left]


@dataclass
class DualElimination:
    """The same for fewer tokens n than channels m, without anything m × m: with
    ``K = X Xᵀ + λI`` [n, n] of the channels left, ``x`` [n, m], ``solved`` [n, m] = K⁻¹ X and
    ``left`` [n, out] = K⁻¹ (T − X W_present)."""

    x: Tensor
    solved: Tensor
    left: Tensor
    present: Tensor
    ridge: float

    def costs(self, width: int) -> Tensor:
        x, solved = (tensor.T.unflatten(0, (-1, width)) for tensor in (self.x, self.solved))
        blocks = torch.eye(width).to(x) - x @ solved.mT
        weight = self.present + self.x.T @ self.left
        return _costs(blocks / self.ridge, weight, self.present, self.ridge)

    def remove(self, channels: Tensor) -> None:
        x, gone = self.x[:, channels], self.solved[:, channels]
        inner = torch.eye(len(channels)).to(x) - x.T @ gone
        rows = torch.cat([x.T @ self.solved, x.T @ self.left], dim=1)
        update = gone @ torch.linalg.solve(inner, rows)
        inputs = self.x.shape[1]
        solved = self.solved + update[:, :inputs]
        # what the channels gave is now to be given by the others
        missing = solved[:, channels] @ self.present[channels]
        self.left = self.left + update[:, inputs:] + missing
        left = _others(channels, inputs)
        self.x, self.solved, self.present = self.x[:, left], solved[:, left], self.present[left]


def _others(places: Tensor, count: int) -> Tensor:
    """Of ``count`` places those that are not among ``places``, in order."""
    others = torch.ones(count, dtype=torch.bool, device=places.device)
    others[places] = False
    return others.nonzero()[:, 0]


def _diagonal_blocks(matrix: Tensor, width: int) -> Tensor:
    """[m / width, width, width] of a matrix [m, m]."""
    places = torch.arange(len(matrix), device=matrix.device).reshape(-1, width)
    return matrix[places[:, :, None], places[:, None, :]]


def _costs(blocks: Tensor, weight: Tensor, present: Tensor, ridge: float) -> Tensor:
    weight, prior = (w.unflatten(0, (-1, blocks.shape[-1])) for w in (weight, present))
    tiny = torch.finfo(blocks.dtype).tiny
    if blocks.shape[-1] == 1:
        cost = weight.square().sum((1, 2)) / blocks[:, 0, 0].clamp_min(tiny)
    else:
        solved, _ = torch.linalg.solve_ex(blocks, weight)
        cost = (weight * solved).sum((1, 2))
    return cost - ridge * prior.square().sum((1, 2))


def in_turn(
    elimination: Elimination | None,
    units: int,
    width: int,
    *,
    keep: int = 0,
    parts: int = 1,
    first: Collection[int] = (),
    never: Collection[int] = (),
    rounds: int = ROUNDS,
) -> Tensor:
    """The turn in which each unit goes [units], 0 first; int64, on the CPU.

    Turns are taken until ``keep`` units are left, which follow in the order of what they then cost.
    The units are in ``parts`` of as many, all of which lose as many. Those ``first`` go before all
    others, those ``never`` are the last. ``elimination`` None, where a layer has no signal: in the
    units' order.
    """
    if elimination is None:
        return torch.arange(units)
    turns: list[int] = []
    left = torch.arange(units)
    step = max(1, (units - keep) // (rounds * parts))
    while len(left):
        costs = elimination.costs(width).cpu().nan_to_num(torch.inf)
        costs[torch.isin(left, torch.tensor(list(never), dtype=torch.long))] = torch.inf
        table = torch.full((units,), torch.nan, dtype=costs.dtype)  # sorted behind all numbers
        table[left] = costs
        order = table.reshape(parts, -1).argsort(dim=1, stable=True)
        order = (order + torch.arange(parts)[:, None] * order.shape[1]).T.flatten()
        offered = order[~table[order].isnan()]
        more = units - keep - len(turns)
        gone = offered[: min(step * parts, -(-more // parts) * parts)]
        if more <= 0:
            gone = offered
        elif first and not turns:
            gone = torch.tensor(sorted(first))
        turns += gone.tolist()
        if len(turns) < units:
            places = torch.searchsorted(left, gone)
            channels = (places[:, None] * width + torch.arange(width)).flatten()
            elimination.remove(channels.to(elimination.present.device))
        left = left[~torch.isin(left, gone)]
    return torch.tensor(turns).argsort()
