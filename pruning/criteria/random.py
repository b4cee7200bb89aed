"""Random choice: the floor that every other criterion has to beat."""

from __future__ import annotations

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion, Statistics


def score(statistics: Statistics, shape: ModuleShape, rng: np.random.Generator) -> np.ndarray:
    """Uniform values from ``rng``, which follows the recipe's seed, the block and the module."""
    return rng.random(shape.units * shape.unit_width)


CRITERIA.add(
    "random",
    Criterion(score, updates=False),
    title="Random",
    summary="Random values; the recipe's seed decides. The floor for every comparison.",
    source="baseline of Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner)",
    cost="closed form",
    place=120,
)
