"""First-order Taylor importance of whole weight vectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``Σ_v |Σ_k w_k g_k|`` over the unit's weight vectors v (a row of level 1 or column of
    level 2); ``g`` is the gradient of the mean loss. LLM-Pruner's option ``vectorize``,
    measured in :mod:`pruning.measure.gradient_pass`.
    """
    return statistics["taylor_vector"]


CRITERIA.add(
    "taylor_vector",
    Criterion(score, gradients=frozenset({"taylor_vector"}), updates=False),
    title="Taylor, vector (LLM-Pruner)",
    summary="First-order change of the loss when the unit's rows and columns go, each taken whole.",
    source="Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner), Vector",
    place=90,
)
