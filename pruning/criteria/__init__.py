"""Criteria: which units matter least. One file each; numpy only, so previews need no model."""

from pruning.criteria.base import (
    LEVEL1,
    SCORES,
    Criterion,
    Score,
    channel_scores,
    level1_sum,
    unit_scores,
)
from pruning.criteria import (  # noqa: F401  (they register, in the order that people see)
    second_moment_exact,
    second_moment,
    identity,
    flap,
    wanda_sp,
    fisher,
    taylor_element1,
    taylor_element2,
    taylor_vector,
    l1,
    l2,
    random,
)

__all__ = [
    "LEVEL1", "SCORES", "Criterion", "Score", "channel_scores", "level1_sum", "unit_scores",
]  # fmt: skip
