"""Squared first-order effect of a unit, per token."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``E_t[(g_t · Σ_j B_:j h_tj)²]`` over a unit's channels j, with ``g_t`` the gradient of the
    loss by the module's output at token t; each channel of a head holds an equal share."""
    return statistics["fisher_unit"]


CRITERIA.add(
    "fisher",
    Criterion(score, gradients=frozenset({"fisher_unit"}), updates=False),
    title="Fisher / squared Taylor per token",
    summary="Mean square, over tokens, of the first-order change of the loss when the unit falls "
    "silent.",
    source="Theis et al. 2018; Molchanov et al., CVPR 2019",
    place=60,
)
