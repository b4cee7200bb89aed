"""Which FFN channels go."""

from __future__ import annotations

from dataclasses import replace
from math import lcm

import numpy as np

from pruning.artifacts.plan import ModulePlan
from pruning.artifacts.shapes import ModuleShape
from pruning.planning.selection import keep_all, removed_count, rounded


def plan_channels(
    block: int,
    shape: ModuleShape,
    scores: np.ndarray,
    criterion: str,
    sparsity: float,
    multiple: int = 1,
) -> ModulePlan:
    """Remove the share ``sparsity`` of FFN channels with the lowest ``scores`` [channels]; the
    width that stays is rounded to the nearest ``multiple`` (never to nothing; nothing goes where
    that would be all). Every expert loses as many of its own channels, so scores are not compared
    between experts."""
    size = shape.units_per_expert
    count = 0 if shape.fixed else removed_count(sparsity, size)
    if count:
        count = size - rounded(size - count, lcm(multiple, shape.step), size)
    if count == 0:
        return keep_all(block, shape)
    tables = scores.reshape(shape.experts, size)
    places = [_weakest(table, count) for table in tables]
    removed = np.concatenate([place + size * e for e, place in enumerate(places)])
    ranks = np.concatenate(
        [
            table[place].argsort(kind="stable").argsort() + 1
            for table, place in zip(tables, places, strict=True)
        ]
    )
    return replace(
        keep_all(block, shape),
        removed=tuple(removed.tolist()),
        criteria=(criterion,) * len(removed),
        values=tuple(scores[removed].tolist()),
        partners=(-1,) * len(removed),
        ranks=tuple(ranks.tolist()),
    )


def _weakest(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` lowest scores, ascending; of equal scores the first ones.

    A partition instead of a sort: this is what a slider waits for.
    """
    limit = np.partition(scores, count - 1)[count - 1]
    below = np.nonzero(scores < limit)[0]
    equal = np.nonzero(scores == limit)[0][: count - len(below)]
    return np.sort(np.concatenate([below, equal]))
