"""Wanda made structured: weight sizes times the size of what they multiply."""

from __future__ import annotations

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion, Statistics


def score(statistics: Statistics, shape: ModuleShape, rng: np.random.Generator) -> np.ndarray:
    """``Σ_i |B_ij| · √E[h_j²]`` with ``h`` what the output projection reads: the column sum
    of Wanda's metric.

    Wanda's ``‖h_j‖`` is ``√(n E[h_j²])``; the number of tokens ``n`` is the same for all units.
    """
    return statistics["level2_abs"] * np.sqrt(statistics["input_second_moment"], dtype=np.float64)


CRITERIA.add(
    "wanda_sp",
    Criterion(score),
    title="Wanda-sp",
    summary="Absolute output weights times the root mean square of their input, summed over "
    "the unit.",
    source="Sun et al., ICLR 2024 (Wanda); structured as in An et al., AAAI 2024 (FLAP)",
    cost="closed form",
    place=50,
)
