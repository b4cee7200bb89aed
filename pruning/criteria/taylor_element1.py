"""First-order Taylor importance of single weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``Σ_k |w_k g_k|`` over all weights k of the unit; ``g`` is the gradient of the mean
    loss. LLM-Pruner's option ``param_first``, measured in :mod:`pruning.measure.gradient_pass`.
    """
    return statistics["taylor_element1"]


CRITERIA.add(
    "taylor_element1",
    Criterion(score, gradients=frozenset({"taylor_element1"}), updates=False),
    title="Taylor, element 1 (LLM-Pruner)",
    summary="First-order change of the loss when the unit's weights go, summed over single "
    "weights.",
    source="Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner), Element¹",
    place=70,
)
