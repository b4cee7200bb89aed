"""FLAP's weighted input feature variance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.criteria.base import SCORES, Criterion
from pruning.shape import ModuleShape


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``Var[h_j] · ‖B_:j‖²``: what is lost when unit j is replaced by its mean (WIFV).

    The variance is the unbiased one; the released code's running variance is not. That code
    also squares the score of attention channels before summing, which the paper does not.
    """
    return statistics["input_variance"].astype(np.float64) * statistics["level2_sq"]


SCORES.add(
    "flap",
    Criterion(score),
    title="FLAP (fluctuation)",
    summary="Variance of the level-2 input times the squared level-2 weights: what a bias cannot "
    "make up for.",
    source="An et al., AAAI 2024 (FLAP), WIFV",
)
