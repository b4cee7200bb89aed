"""Criteria: which units matter least. One file each; numpy only, so previews need no model."""

from pruning.criteria.base import (
    CRITERIA,
    IN_PROJ,
    Criterion,
    Score,
    Statistics,
    channel_scores,
    in_proj_sum,
    unit_scores,
)

__all__ = [
    "CRITERIA",
    "IN_PROJ",
    "Criterion",
    "Score",
    "Statistics",
    "channel_scores",
    "in_proj_sum",
    "unit_scores",
]
