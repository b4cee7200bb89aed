"""Criteria: which units matter least. One file each; numpy only, so previews need no model."""

from pruning.criteria.base import (
    CRITERIA,
    LEVEL1,
    Criterion,
    Score,
    channel_scores,
    level1_sum,
    unit_scores,
)

__all__ = [
    "CRITERIA",
    "LEVEL1",
    "Criterion",
    "Score",
    "channel_scores",
    "level1_sum",
    "unit_scores",
]
