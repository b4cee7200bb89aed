"""Second-moment importance without any data: inputs taken as white noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion, spread


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``½ ‖B_:j‖² · ‖A_j‖²``, the second moment with Σ = I; for a gated FFN the product of its
    two modules' scores, for attention ``A`` is the value projection."""
    half_norm = 0.5 * statistics["level2_sq"].astype(np.float64)
    if shape.kind == "attention":
        return half_norm * spread(statistics["value_sq"], shape)
    importance = half_norm * statistics["up_sq"]
    if "gate_sq" in statistics:
        importance = importance * half_norm * statistics["gate_sq"]
    return importance


CRITERIA.add(
    "identity",
    Criterion(score),
    title="Second moment without data",
    summary="The paper's second moment with Σ = I: from the weights alone.",
    source="Li, Dong, Lei, CPAL 2025, section 3 (data-free)",
    place=30,
)
