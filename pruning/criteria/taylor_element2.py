"""Second-order Taylor importance of single weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion


def score(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, rng: np.random.Generator
) -> np.ndarray:
    """``Σ_k w_k² · mean over samples of g_k²`` over all weights k of the unit; ``g`` is the
    gradient of the mean loss of one sample. LLM-Pruner's option ``param_second``, measured in
    :mod:`pruning.measure.gradient_pass`.
    """
    return statistics["taylor_element2"]


CRITERIA.add(
    "taylor_element2",
    Criterion(score, gradients=frozenset({"taylor_element2"}), updates=False),
    title="Taylor, element 2 (LLM-Pruner)",
    summary="Second-order change of the loss when the unit's weights go, with squared "
    "gradients as the Hessian.",
    source="Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner), Element²",
    place=80,
)
