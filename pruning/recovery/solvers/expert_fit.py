"""out_proj of all experts of a block, fitted side by side, each to its own tokens.

Experts see very different numbers of tokens. What holds a weight at its present value is the same
absolute ridge for all, ``λ = damping · (mean diagonal of Gᵉ per token of e) · (mean tokens of an
expert)``: an expert with half as many tokens leans twice as much on its present weights, and one
without any keeps them. It is never less than the weight of as many tokens as there are channels
to fit, where a fit without it would follow the noise. The damping is chosen once for the block, by
the held-out error of all experts together: a single one has too few held-out tokens to choose by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from pruning.recovery.solvers.elimination import LIGHT
from pruning.recovery.solvers.layer_fit import Fit, OutputProjectionFit
from pruning.recovery.solvers.normal_equations import DAMPINGS, DEFAULT_DAMPING, NormalEquations


@dataclass(frozen=True)
class ExpertFit:
    """Offers a recovery what :class:`OutputProjectionFit` does; ``dim``: along which dimension the
    experts' weights [in, out] lie side by side."""

    layers: tuple[OutputProjectionFit, ...]
    dim: int = 0

    @property
    def parts(self) -> list[tuple[NormalEquations, NormalEquations]]:
        """Equations of each expert, to fit on and held out."""
        return [(layer.fitting, layer.held_out) for layer in self.layers]

    def cut(self) -> Fit:
        """The present weights of the kept channels."""
        return self._joined((layer.cut() for layer in self.layers), None)

    def compensated(self) -> Fit:
        """The same: experts have no place for a bias."""
        return self.cut()

    def refitted(self) -> Fit:
        """Damped least squares on each expert's kept channels."""
        damping = self.layers[0].damping
        if damping == "auto":
            damping = self._best_damping()
        return self.solved(damping)

    def solved(self, damping: float | None, held_out: bool = True) -> Fit:
        """See :meth:`OutputProjectionFit.solved`."""
        if damping is None:
            return self.cut()
        fits = []
        everything = [layer.fitting for layer in self.layers]
        if held_out:
            everything = [layer.fitting + layer.held_out for layer in self.layers]
        ridges = relative(damping, everything)
        for layer, equations, ridge in zip(self.layers, everything, ridges, strict=True):
            equations, present = equations.select(layer.kept), layer.weight[layer.kept]
            weight, _ = equations.solve(present, None, ridge, intercept=False)
            fits.append(Fit(weight, None, ridge, equations.error(weight, None)))
        return self._joined(fits, damping)

    def in_turn(self, units: int, width: int, **how: Any) -> torch.Tensor:
        """See :meth:`OutputProjectionFit.in_turn`: of all experts' ``units``, each expert by
        itself."""
        experts = len(self.layers)
        ridges = relative(LIGHT, [layer.fitting + layer.held_out for layer in self.layers])
        how["keep"] //= experts
        parts = zip(self.layers, ridges, strict=True)
        return torch.cat([part.in_turn(units // experts, width, r, **how) for part, r in parts])

    def _joined(self, fits: Iterable[Fit], damping: float | None) -> Fit:
        fits = list(fits)
        weight = torch.cat([fit.weight for fit in fits], dim=self.dim)
        return Fit(weight, None, damping, sum(fit.error for fit in fits))

    def _best_damping(self) -> float | None:
        """The damping of DAMPINGS with the least held-out error of all experts together; None:
        changing nothing is best."""
        fitting = [layer.fitting.select(layer.kept) for layer in self.layers]
        held_out = [layer.held_out.select(layer.kept) for layer in self.layers]
        present = [layer.weight[layer.kept] for layer in self.layers]
        if not any(part.count for part in held_out) or not any(part.count for part in fitting):
            return DEFAULT_DAMPING

        def held_out_error(weight_of: Callable[[int], torch.Tensor]) -> float:
            return sum(part.error(weight_of(e), None) for e, part in enumerate(held_out))

        best, least = None, held_out_error(present.__getitem__)
        for damping in DAMPINGS:
            ridges = relative(damping, fitting)
            solved = [
                part.solve(present[e], None, ridges[e], intercept=False)[0]
                for e, part in enumerate(fitting)
            ]
            error = held_out_error(solved.__getitem__)
            if error < least:
                best, least = damping, error
        return best


def relative(damping: float, parts: list[NormalEquations]) -> list[float]:
    """``damping`` relative to each expert's own Gram matrix, such that the ridge is the same for
    all: as good as so many mean tokens, or as tokens as there are channels to fit."""
    tokens = damping * sum(part.count for part in parts) / len(parts)
    return [max(tokens, len(part.inputs)) / max(part.count, 1) for part in parts]
