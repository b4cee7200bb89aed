"""Second-moment importance with the true intermediate of the module."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``½ ‖B_:j‖² · E[h_j²]`` with ``h`` the real level-2 input, after activation and gate."""
    return 0.5 * statistics["level2_sq"].astype(np.float64) * statistics["input_second_moment"]


CRITERIA.add(
    "second_moment_exact",
    Criterion(score),
    title="Second moment (exact)",
    summary="The same with the measured second moment of the level-2 input itself, after "
    "activation and gate.",
    source="Headroom; exact form of Li, Dong, Lei, CPAL 2025, section 3",
    place=10,
)
