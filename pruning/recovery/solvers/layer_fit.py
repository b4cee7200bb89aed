"""What a recovery works with: out_proj of a module, its equations and its kept channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from pruning.recovery.solvers.activation_buffer import Equations
from pruning.recovery.solvers.dual import DualNormalEquations
from pruning.recovery.solvers.elimination import LIGHT
from pruning.recovery.solvers.elimination import in_turn as turns
from pruning.recovery.solvers.normal_equations import DAMPINGS, DEFAULT_DAMPING, NormalEquations

Solvable = NormalEquations | DualNormalEquations


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
class OutputProjectionFit:
    """What a recovery may work with: equations of all out_proj inputs on fitting and held-out
    tokens, the present ``weight`` [in, out] and ``bias`` [out], and the ``kept`` channels."""

    fitting: Equations
    held_out: Equations
    weight: Tensor
    bias: Tensor | None
    kept: Tensor
    damping: float | Literal["auto"]
    add_bias: bool = False

    @classmethod
    def of(
        cls,
        equations: tuple[Equations, Equations],
        weight: Tensor,
        bias: Tensor | None,
        damping: float | Literal["auto"],
        *,
        kept: Tensor | None = None,
        add_bias: bool = False,
    ) -> OutputProjectionFit:
        """From ``equations`` (to fit on, held out) in any precision, all brought to the device
        that solves; ``kept`` None: all channels."""
        fitting, held_out = (part.in_float64() for part in equations)
        device = fitting.device
        kept = torch.arange(len(weight)) if kept is None else kept
        bias = None if bias is None else bias.to(device)
        return cls(fitting, held_out, weight.to(device), bias, kept.to(device), damping, add_bias)

    @property
    def intercept(self) -> bool:
        return self.bias is not None or self.add_bias

    @cached_property
    def parts(self) -> tuple[Solvable, Solvable]:
        """Equations of the kept channels on the tokens to fit on and on the held-out ones."""
        return self.fitting.select(self.kept), self.held_out.select(self.kept)

    @cached_property
    def _everything(self) -> Solvable:
        fitting, held_out = self.parts
        return fitting + held_out

    @cached_property
    def _present(self) -> Tensor:
        return self.weight[self.kept]

    def cut(self) -> Fit:
        """The present weights of the kept channels."""
        error = self._everything.error(self._present, self.bias)
        return Fit(self._present, self.bias, None, error)

    def compensated(self) -> Fit:
        """The present weights, with the mean output of what was removed added to the bias."""
        gone = torch.ones(len(self.weight), dtype=torch.bool, device=self.weight.device)
        gone[self.kept] = False
        inputs = self.fitting.inputs + self.held_out.inputs
        mean = inputs[gone].to(self.weight) / self._everything.count
        bias = mean @ self.weight[gone] + (0.0 if self.bias is None else self.bias)
        return Fit(self._present, bias, None, self._everything.error(self._present, bias))

    def refitted(self) -> Fit:
        """Damped least squares on the kept channels, damping chosen on the held-out tokens."""
        damping = self.damping
        if damping == "auto":
            damping = best_damping(*self.parts, self._present, self.bias, self.intercept)
        return self.solved(damping)

    def in_turn(self, units: int, width: int, damping: float = LIGHT, **how: Any) -> Tensor:
        """See :func:`~pruning.recovery.solvers.elimination.in_turn`, of the kept channels in
        ``units`` of ``width``."""
        tokens, intercept = self._everything, self.intercept
        elimination = tokens.elimination(self._present, self.bias, damping, intercept)
        return turns(elimination, units, width, **how)

    def solved(self, damping: float | None, held_out: bool = True) -> Fit:
        """Least squares with this ``damping`` (None: the present weights), on all tokens or on all
        but the ``held_out`` ones."""
        if damping is None:
            return self.cut()
        tokens = self._everything if held_out else self.parts[0]
        weight, bias = tokens.solve(self._present, self.bias, damping, self.intercept)
        return Fit(weight, bias, damping, tokens.error(weight, bias))


def best_damping(
    fitting: Solvable, held_out: Solvable, present: Tensor, bias: Tensor | None, intercept: bool
) -> float | None:
    """The damping of DAMPINGS with the least held-out error; None: changing nothing is best.

    Looked for from the middle downhill: the error falls and then rises with the damping. Without
    held-out tokens the middle value is used, for there is nothing to choose by.
    """
    if held_out.count == 0 or fitting.count == 0:
        return DEFAULT_DAMPING
    trial = fitting.trial(held_out, present, bias, intercept)

    @cache
    def error(place: int) -> float:
        return trial(DAMPINGS[place])

    place = start = DAMPINGS.index(DEFAULT_DAMPING)
    while place > 0 and error(place - 1) <= error(place):
        place -= 1
    while place >= start and place + 1 < len(DAMPINGS) and error(place + 1) < error(place):
        place += 1
    return DAMPINGS[place] if error(place) < held_out.error(present, bias) else None
