"""Criteria: which units matter least. One file each; numpy only, so previews need no model."""

from pruning.criteria.base import SCORES, Score, unit_scores
from pruning.criteria import second_moment, second_moment_exact  # noqa: F401  (they register)

__all__ = ["SCORES", "Score", "unit_scores"]
