"""FLAP's weighted input feature variance."""

from __future__ import annotations

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion, Statistics


def score(statistics: Statistics, shape: ModuleShape, rng: np.random.Generator) -> np.ndarray:
    """``Var[h_j] · ‖B_:j‖²``: what is lost when unit j is replaced by its mean (WIFV).

    The variance is the unbiased one; the released code's running variance is not. The scores of
    attention channels are squared, as that code does: the paper does not say so, but its tables
    come from there, and without it the ranking over modules takes heads first.
    """
    lost = statistics["input_variance"].astype(np.float64) * statistics["level2_sq"]
    return lost**2 if shape.kind == "attention" else lost


CRITERIA.add(
    "flap",
    Criterion(score),
    title="FLAP (fluctuation)",
    summary="Variance of what the output projection reads times its squared weights: what a bias "
    "cannot make up for.",
    source="An et al., AAAI 2024 (FLAP), WIFV",
    cost="closed form",
    place=40,
)
