"""Normal equations of a linear layer and their damped solutions (method section 4).

Weights are handled as ``W`` [in, out] so that ``X W + b`` is the layer; ``n`` counts tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning.distributed.ranks import Ranks
from pruning.recovery.solvers.elimination import PrimalElimination
from pruning.recovery.solvers.gram import gram
from pruning.utils.precision import sum_dtype, sum_float64, to_float64

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
DEFAULT_DAMPING = 0.3
_MAX_RAISES = 12

Solver = Callable[[float], tuple[Tensor, Tensor | None]]
"""Weights [in, out] and bias [out] for a damping."""

Trial = Callable[[float], float]
"""Held-out error ``‖X W + b − T‖²`` of the solution with a damping."""


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
        self.gram += gram([x], x.shape[1], self.gram.dtype, x.device)
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

    def gathered(self, ranks: Ranks) -> NormalEquations:
        """The equations of the tokens of all ``ranks``, on the first of them."""
        if ranks.size == 1:
            return self
        count = int(ranks.total(torch.tensor(self.count)))
        tensors = (self.gram, self.cross, self.inputs, self.targets, self.energy)
        return NormalEquations(count, *map(ranks.total_at_first, tensors))

    def in_float64(self) -> NormalEquations:
        """The same in float64, on a device that has it."""
        tensors = (self.gram, self.cross, self.inputs, self.targets, self.energy)
        return NormalEquations(self.count, *map(to_float64, tensors))

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
        centred = self.centred(*self._origin(bias, intercept))
        gram, scale = centred.gram, centred.gram.diagonal().mean().item()
        left = centred.cross - gram @ present

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

    def trial(
        self, held_out: NormalEquations, present: Tensor, bias: Tensor | None, intercept: bool
    ) -> Trial:
        """Errors on ``held_out`` of what :meth:`solver` finds. Only their order matters, so the
        change of the weights is taken in float32."""
        origin = self._origin(bias, intercept)
        fitted, held = self.centred(*origin), held_out.centred(*origin)
        left, held_left = (part.cross - part.gram @ present for part in (fitted, held))
        kept = held.energy - (present * (held.cross + held_left)).sum()
        scale, unchanged = torch.stack([fitted.gram.diagonal().mean(), kept]).tolist()
        if scale <= 0.0:
            return lambda _damping: unchanged
        gram, left, held_gram, held_left = (
            (tensor / scale).float() for tensor in (fitted.gram, left, held.gram, held_left)
        )

        def gained(factor: Tensor) -> Tensor:
            change = torch.cholesky_solve(left, factor)
            return sum_float64(change * (held_gram @ change - 2.0 * held_left))

        def error(damping: float) -> float:
            found = number_by_factor(gram, damping, gained)
            return unchanged if found is None else unchanged + scale * found

        return error

    def elimination(
        self, present: Tensor, bias: Tensor | None, damping: float, intercept: bool
    ) -> PrimalElimination | None:
        """What :meth:`solve` finds, ready to go on without some inputs; None: there is no
        signal."""
        centred = self.centred(*self._origin(bias, intercept))
        ridge = damping * centred.gram.diagonal().mean().item()
        factor = damped_factor(centred.gram, ridge) if ridge > 0.0 else None
        if factor is None:
            return None
        change = torch.cholesky_solve(centred.cross - centred.gram @ present, factor)
        inverse = torch.cholesky_inverse(factor)
        return PrimalElimination(inverse, present + change, present, ridge)

    def centred(self, inputs: Tensor | None, targets: Tensor | None) -> NormalEquations:
        """The equations of ``X − inputs`` [in] and ``T − targets`` [out]; None: nothing is taken
        off."""
        centred = self
        if targets is not None:
            centred = replace(
                centred,
                cross=centred.cross - torch.outer(centred.inputs, targets),
                targets=centred.targets - self.count * targets,
                energy=centred.energy - targets @ (2.0 * centred.targets - self.count * targets),
            )
        if inputs is not None:
            mixed = torch.outer(centred.inputs - 0.5 * self.count * inputs, inputs)
            centred = replace(
                centred,
                gram=centred.gram - mixed - mixed.T,
                cross=centred.cross - torch.outer(inputs, centred.targets),
                inputs=centred.inputs - self.count * inputs,
            )
        return centred

    def _origin(self, bias: Tensor | None, intercept: bool) -> tuple[Tensor | None, Tensor | None]:
        """What is taken off inputs and targets so that no bias is left to find."""
        if intercept:
            return self.inputs / self.count, self.targets / self.count
        return None, bias


def damped_factor(gram: Tensor, ridge: float) -> Tensor | None:
    """Cholesky factor of ``gram + ridge·I``; None when no damping makes it positive."""
    return next((factor for factor, good in _factors(gram, ridge) if good), None)


def number_by_factor(
    gram: Tensor, ridge: float, number: Callable[[Tensor], Tensor]
) -> float | None:
    """The ``number`` [] that comes of :func:`damped_factor`'s factor. Whether that is one and the
    number are asked of the device together: each question waits for it."""
    for factor, good in _factors(gram, ridge):
        value = number(factor)
        fine, found = torch.stack([good.to(value), value]).tolist()
        if fine:
            return found
    return None


def _factors(gram: Tensor, ridge: float) -> Iterator[tuple[Tensor, Tensor]]:
    """What a factorisation gives for ever more damping, and whether that is a factor []."""
    diagonal = gram.diagonal()
    for _ in range(_MAX_RAISES):
        damped = gram.clone()
        damped.diagonal().copy_(diagonal + ridge)
        factor, failed = torch.linalg.cholesky_ex(damped)
        yield factor, (failed == 0) & torch.isfinite(factor.diagonal()).all()
        ridge *= 10.0
