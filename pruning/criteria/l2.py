"""Size of a unit's weights in both layers, as a sum of squares."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion, in_proj_sum


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``Σ_P ‖A_P,j‖² + ‖B_:j‖²`` over the level-1 projections P; biases do not count.

    The square of the unit's L2 norm: it orders units as the norm does.
    """
    return in_proj_sum(statistics, shape, "sq") + statistics["level2_sq"]


CRITERIA.add(
    "l2",
    Criterion(score),
    title="Weight size, L2",
    summary="Sum of the squared weights of the unit in both layers; looks at no data.",
    source="baseline of Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner)",
    place=110,
)
