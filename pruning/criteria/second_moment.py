"""Second-moment importance as the paper gives it (method section 3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``½ ‖B_:j‖² · E[(A_j x)²]``; for a gated FFN the product of its two modules' scores.

    For attention the second moment is that of the level-2 input (the values mixed by the
    attention pattern), summed over a head's channels by the caller.
    """
    half_norm = 0.5 * statistics["level2_sq"].astype(np.float64)
    if shape.kind == "attention":
        return half_norm * statistics["input_second_moment"]
    importance = half_norm * statistics["up_second_moment"]
    if "gate_second_moment" in statistics:
        importance = importance * half_norm * statistics["gate_second_moment"]
    return importance


CRITERIA.add(
    "second_moment",
    Criterion(score, in_proj=True),
    title="Second moment (paper)",
    summary="Size of what the unit adds to the output, from the second moments of level 1; "
    "for a gated FFN the product over its two branches.",
    source="Li, Dong, Lei, CPAL 2025, section 3",
    place=20,
)
