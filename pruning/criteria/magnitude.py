"""Size of a unit's weights in both layers: a sum of absolute values, or of squares."""

from __future__ import annotations

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion, Statistics, in_proj_sum


def l1(statistics: Statistics, shape: ModuleShape, rng: np.random.Generator) -> np.ndarray:
    """``Σ_P ‖A_P,j‖₁ + ‖B_:j‖₁`` over the input projections P; biases do not count."""
    return in_proj_sum(statistics, shape, "abs") + statistics["level2_abs"]


def l2(statistics: Statistics, shape: ModuleShape, rng: np.random.Generator) -> np.ndarray:
    """``Σ_P ‖A_P,j‖² + ‖B_:j‖²`` over the input projections P; biases do not count.

    The square of the unit's L2 norm: it orders units as the norm does.
    """
    return in_proj_sum(statistics, shape, "sq") + statistics["level2_sq"]


CRITERIA.add(
    "l1",
    Criterion(l1),
    title="Weight size, L1",
    summary="Sum of the absolute weights of the unit in both layers; looks at no data.",
    source="baseline of Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner); Li et al., ICLR 2017",
    cost="closed form",
    place=100,
)
CRITERIA.add(
    "l2",
    Criterion(l2),
    title="Weight size, L2",
    summary="Sum of the squared weights of the unit in both layers; looks at no data.",
    source="baseline of Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner)",
    cost="closed form",
    place=110,
)
