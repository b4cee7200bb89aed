"""Criteria: which units matter least. One file each; numpy only, so previews need no model."""

from pruning.criteria.base import LEVEL1, SCORES, Criterion, Score, level1_sum, unit_scores
from pruning.criteria import second_moment, second_moment_exact  # noqa: F401  (they register)

__all__ = ["LEVEL1", "SCORES", "Criterion", "Score", "level1_sum", "unit_scores"]
