"""Normal equations of a linear layer and their damped solutions (method section 4).

Weights are handled as ``W`` [in, out] so that ``X W + b`` is the layer; ``n`` counts tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from torch import Tensor

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
DEFAULT_DAMPING = 0.3
_MAX_RAISES = 12

Solver = Callable[[float], tuple[Tensor, Tensor | None]]
"""Weights [in, out] and bias [out] for a damping."""


def sum_dtype(device: torch.device) -> torch.dtype:
    """float64 on the CPU; float32 on accelerators, where float64 is slow or absent."""
    return torch.float64 if device.type == "cpu" else torch.float32


@dataclass
class NormalEquations:
    """Sums over tokens of ``X`` [n, in] and targets ``T`` [n, out].

    ``gram`` [in, in] = XᵀX, ``cross`` [in, out] = XᵀT, ``energy`` = ‖T‖².
    """

    count: int
    gram: Tensor
    cross: Tensor
    inputs: Tensor
    targets: Tensor
    energy: Tensor

    @classmethod
    def zeros(cls, inputs: int, outputs: int, device: torch.device) -> NormalEquations:
        def new(*size: int) -> Tensor:
            return torch.zeros(size, dtype=sum_dtype(device), device=device)

        return cls(0, new(inputs, inputs), new(inputs, outputs), new(inputs), new(outputs), new())

    def add(self, x: Tensor, target: Tensor) -> None:
        """Add a batch [..., in] and [..., out]. Products are taken in float32 over one batch
        (a few thousand tokens) and summed in the accumulator's precision."""
        x = x.reshape(-1, x.shape[-1]).float()
        target = target.reshape(-1, target.shape[-1]).float()
        self.count += x.shape[0]
        self.gram += x.T @ x
        self.cross += x.T @ target
        self.inputs += x.sum(0)
        self.targets += target.sum(0)
        self.energy += target.square().sum()

    @property
    def device(self) -> torch.device:
        return self.gram.device

    def __add__(self, other: NormalEquations) -> NormalEquations:
        return NormalEquations(
            self.count + other.count,
            self.gram + other.gram,
            self.cross + other.cross,
            self.inputs + other.inputs,
            self.targets + other.targets,
            self.energy + other.energy,
        )

    def double(self) -> NormalEquations:
        """The same in float64, on a device that has it."""
        device = "cpu" if self.gram.device.type == "mps" else self.gram.device
        tensors = (self.gram, self.cross, self.inputs, self.targets, self.energy)
        return NormalEquations(self.count, *(t.to(device, torch.float64) for t in tensors))

    def select(self, channels: Tensor) -> NormalEquations:
        """The equations of the input ``channels`` only."""
        channels = channels.to(self.gram.device)
        return replace(
            self,
            gram=self.gram[channels][:, channels],
            cross=self.cross[channels],
            inputs=self.inputs[channels],
        )

    def error(self, weight: Tensor, bias: Tensor | None) -> float:
        """``‖X W + b − T‖²`` of ``weight`` [in, out] and ``bias`` [out]."""
        value = (weight * (self.gram @ weight)).sum() - 2 * (weight * self.cross).sum()
        value = value + self.energy
        if bias is not None:
            drift = self.inputs @ weight - self.targets
            value = value + 2 * (bias * drift).sum() + self.count * bias.square().sum()
        return max(value.item(), 0.0)

    def solve(
        self, present: Tensor, bias: Tensor | None, damping: float, intercept: bool
    ) -> tuple[Tensor, Tensor | None]:
        """``argmin ‖X W + b − T‖² + λ‖W − W_present‖²`` with ``λ = damping · mean(diag(G))``.

        With ``intercept`` b is free, else it stays ``bias``. A ridge toward the present
        weights never does worse on these tokens than keeping them. When the factorisation
        fails, damping is raised tenfold; a module without any signal keeps its weights.
        """
        return self.solver(present, bias, intercept)(damping)

    def solver(self, present: Tensor, bias: Tensor | None, intercept: bool) -> Solver:
        """:meth:`solve` for several dampings: what they share is computed once."""
        gram, cross = self.gram, self.cross
        if intercept:
            gram = gram - torch.outer(self.inputs, self.inputs) / self.count
            cross = cross - torch.outer(self.inputs, self.targets) / self.count
        elif bias is not None:
            cross = cross - torch.outer(self.inputs, bias)
        scale, left = gram.diagonal().mean().item(), cross - gram @ present

        def solved(damping: float) -> tuple[Tensor, Tensor | None]:
            weight, free = present, bias
            if scale > 0.0:
                factor = damped_factor(gram, damping * scale)
                if factor is not None:
                    weight = present + torch.cholesky_solve(left, factor)
            if intercept:
                free = (self.targets - self.inputs @ weight) / self.count
            return weight, free

        return solved


def damped_factor(gram: Tensor, ridge: float) -> Tensor | None:
    """Cholesky factor of ``gram + ridge·I``; None when no damping makes it positive."""
    diagonal = gram.diagonal()
    for _ in range(_MAX_RAISES):
        damped = gram.clone()
        damped.diagonal().copy_(diagonal + ridge)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed and torch.isfinite(factor).all():
            return factor
        ridge *= 10.0
    return None


@dataclass(frozen=True)
class Fit:
    """Weights ``weight`` [kept, out] and ``bias`` [out] of a layer, and how well they do.

    Errors are squared norms over all calibration tokens; ``damping`` is None when nothing was
    solved or the present weights were best on the held-out tokens.
    """

    weight: Tensor
    bias: Tensor | None
    damping: float | None
    error: float


@dataclass(frozen=True)
class LevelTwo:
    """What a recovery may work with: equations of all level-2 channels on fitting and held-out
    tokens, the present ``weight`` [in, out] and ``bias`` [out], and the ``kept`` channels."""

    fitting: NormalEquations
    held_out: NormalEquations
    weight: Tensor
    bias: Tensor | None
    kept: Tensor
    damping: float | Literal["auto"]
    add_bias: bool

    @property
    def intercept(self) -> bool:
        return self.bias is not None or self.add_bias

    def cut(self) -> Fit:
        """The present weights of the kept channels."""
        weight = self.weight[self.kept]
        error = (self.fitting + self.held_out).select(self.kept).error(weight, self.bias)
        return Fit(weight, self.bias, None, error)

    def compensated(self) -> Fit:
        """The present weights, with the mean output of what was removed added to the bias."""
        equations = self.fitting + self.held_out
        gone = torch.ones(len(self.weight), dtype=torch.bool, device=self.weight.device)
        gone[self.kept] = False
        mean = equations.inputs[gone] / equations.count
        bias = mean @ self.weight[gone] + (0.0 if self.bias is None else self.bias)
        weight = self.weight[self.kept]
        return Fit(weight, bias, None, equations.select(self.kept).error(weight, bias))

    def refitted(self) -> Fit:
        """Damped least squares on the kept channels, damping chosen on the held-out tokens."""
        present = self.weight[self.kept]
        fitting, held_out = self.fitting.select(self.kept), self.held_out.select(self.kept)
        damping = self.damping
        if damping == "auto":
            damping = best_damping(fitting, held_out, present, self.bias, self.intercept)
        if damping is None:
            return self.cut()
        everything = fitting + held_out
        weight, bias = everything.solve(present, self.bias, damping, self.intercept)
        return Fit(weight, bias, damping, everything.error(weight, bias))


def best_damping(
    fitting: NormalEquations,
    held_out: NormalEquations,
    present: Tensor,
    bias: Tensor | None,
    intercept: bool,
) -> float | None:
    """The damping of DAMPINGS with the least held-out error; None: changing nothing is best.

    Looked for from the middle downhill: the error falls and then rises with the damping. Without
    held-out tokens the middle value is used, for there is nothing to choose by.
    """
    if held_out.count == 0 or fitting.count == 0:
        return DEFAULT_DAMPING
    solver = fitting.solver(present, bias, intercept)

    @cache
    def error(place: int) -> float:
        return held_out.error(*solver(DAMPINGS[place]))

    place = start = DAMPINGS.index(DEFAULT_DAMPING)
    while place > 0 and error(place - 1) <= error(place):
        place -= 1
    while place >= start and place + 1 < len(DAMPINGS) and error(place + 1) < error(place):
        place += 1
    return DAMPINGS[place] if error(place) < held_out.error(present, bias) else None


class Stopwatch:
    """Adds up the seconds spent inside ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started
