"""Size of a unit's weights in both layers, as a sum of absolute values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion, in_proj_sum


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``Σ_P ‖A_P,j‖₁ + ‖B_:j‖₁`` over the level-1 projections P; biases do not count."""
    return in_proj_sum(statistics, shape, "abs") + statistics["level2_abs"]


CRITERIA.add(
    "l1",
    Criterion(score),
    title="Weight size, L1",
    summary="Sum of the absolute weights of the unit in both layers; looks at no data.",
    source="baseline of Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner); Li et al., ICLR 2017",
    place=100,
)
