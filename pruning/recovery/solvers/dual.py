"""The equations of a linear layer given by their tokens, for fewer tokens than inputs.

With n tokens and m > n inputs the Gram matrix [m, m] has rank n at most. Its ridge solution is a
combination of the tokens, found from an n × n system (the dual form of ridge regression), so that
neither m × m memory nor m³ work is needed. Same interface as :class:`NormalEquations`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.distributed.ranks import Ranks
from pruning.recovery.solvers.elimination import DualElimination
from pruning.recovery.solvers.normal_equations import Solver, Trial, damped_factor, number_by_factor
from pruning.utils.precision import to_float64


@dataclass
class DualNormalEquations:
    """Inputs ``x`` [n, in] and targets ``t`` [n, out] of all tokens, as they came."""

    x: Tensor
    t: Tensor

    @classmethod
    def zeros(cls, inputs: int, outputs: int, device: torch.device) -> DualNormalEquations:
        """No tokens yet."""
        return cls(torch.zeros(0, inputs, device=device), torch.zeros(0, outputs, device=device))

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def count(self) -> int:
        return len(self.x)

    @property
    def inputs(self) -> Tensor:
        return self.x.sum(0)

    def add(self, x: Tensor, target: Tensor) -> None:
        """Add a batch [..., in] and [..., out]."""
        self.x = torch.cat([self.x, x.reshape(-1, x.shape[-1]).to(self.x)])
        self.t = torch.cat([self.t, target.reshape(-1, target.shape[-1]).to(self.t)])

    def __add__(self, other: DualNormalEquations) -> DualNormalEquations:
        return DualNormalEquations(torch.cat([self.x, other.x]), torch.cat([self.t, other.t]))

    def gathered(self, ranks: Ranks) -> DualNormalEquations:
        """The rows of all ``ranks``."""
        return DualNormalEquations(ranks.gathered(self.x), ranks.gathered(self.t))

    def in_float64(self) -> DualNormalEquations:
        """The same in float64, on a device that has it."""
        return DualNormalEquations(to_float64(self.x), to_float64(self.t))

    def select(self, channels: Tensor) -> DualNormalEquations:
        """The equations of the input ``channels`` only."""
        return DualNormalEquations(self.x[:, channels.to(self.device)], self.t)

    def error(self, weight: Tensor, bias: Tensor | None) -> float:
        """``‖X W + b − T‖²`` of ``weight`` [in, out] and ``bias`` [out]."""
        left = self.x @ weight - self.t
        if bias is not None:
            left += bias
        return left.square_().sum().item()

    def solve(
        self, present: Tensor, bias: Tensor | None, damping: float, intercept: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See :meth:`NormalEquations.solve`: ``W_present + Xᵀ (X Xᵀ + λI)⁻¹ (T − X W_present)``."""
        return self.solver(present, bias, intercept)(damping)

    def solver(self, present: Tensor, bias: Tensor | None, intercept: bool) -> Solver:
        """:meth:`solve` for several dampings: what they share is computed once."""
        x, t = self._centred(self, bias, intercept)
        scale = x.square().sum().item() / x.shape[1]
        products, left = x @ x.T, t - x @ present

        def solved(damping: float) -> tuple[Tensor, Tensor | None]:
            weight, free = present, bias
            if scale > 0.0:
                factor = damped_factor(products, damping * scale)
                if factor is not None:
                    weight = present + x.T @ torch.cholesky_solve(left, factor)
            if intercept:
                free = (self.t - self.x @ weight).mean(0)
            return weight, free

        return solved

    def trial(
        self, held_out: DualNormalEquations, present: Tensor, bias: Tensor | None, intercept: bool
    ) -> Trial:
        """Errors on ``held_out`` of what :meth:`solver` finds, without finding the weights: the
        change of the held-out outputs is a combination of products with the fitted tokens."""
        x, t = self._centred(self, bias, intercept)
        held_x, held_t = self._centred(held_out, bias, intercept)
        left, held_left = t - x @ present, held_t - held_x @ present
        products, held_products = x @ x.T, held_x @ x.T
        scale = products.trace().item() / x.shape[1]

        def remaining(factor: Tensor) -> Tensor:
            change = held_products @ torch.cholesky_solve(left, factor)
            return (held_left - change).square().sum()

        def error(damping: float) -> float:
            ridge = damping * scale
            found = number_by_factor(products, ridge, remaining) if scale > 0.0 else None
            return held_left.square().sum().item() if found is None else found

        return error

    def elimination(
        self, present: Tensor, bias: Tensor | None, damping: float, intercept: bool
    ) -> DualElimination | None:
        """See :meth:`NormalEquations.elimination`."""
        x, t = self._centred(self, bias, intercept)
        ridge = damping * x.square().sum().item() / x.shape[1]
        factor = damped_factor(x @ x.T, ridge) if ridge > 0.0 else None
        if factor is None:
            return None
        solved = torch.cholesky_solve(x, factor)
        left = torch.cholesky_solve(t - x @ present, factor)
        return DualElimination(x, solved, left, present, ridge)

    def _centred(
        self, rows: DualNormalEquations, bias: Tensor | None, intercept: bool
    ) -> tuple[Tensor, Tensor]:
        """Inputs and targets of ``rows`` with what these rows' bias explains taken off."""
        if intercept:
            return rows.x - self.x.mean(0), rows.t - self.t.mean(0)
        return rows.x, rows.t if bias is None else rows.t - bias
