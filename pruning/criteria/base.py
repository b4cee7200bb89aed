"""What a scoring criterion is, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pruning import registries
from pruning.artifacts.shapes import KINDS, ModuleShape
from pruning.utils.errors import NeedsMeasurement
from pruning.utils.registry import Registry

Score = Callable[[Mapping[str, np.ndarray], ModuleShape, np.random.Generator], np.ndarray]
"""``(statistics, shape, rng) -> one importance per level-2 input channel [units·unit_width]``."""

IN_PROJ = ("query", "key", "value", "up", "gate")
"""Level-1 projections by name; a module has those of its kind."""


@dataclass(frozen=True)
class Criterion:
    """``gradients``: names of the statistics it takes from the gradient pass (none: the forward
    pass is enough). ``level1``: it takes statistics of level-1 outputs from that. ``updates``: it
    can be taken again from the pruned stream, so re-scoring makes sense; otherwise the planned
    decision is kept."""

    score: Score
    gradients: frozenset[str] = frozenset()
    in_proj: bool = False
    updates: bool = True

    @property
    def parameters(self) -> tuple[str, ...]:
        """Fields of the recipe that it alone reads; forms show them beside it."""
        passes = ("calibration.gradient_samples", "calibration.gradient_seq_len")
        return passes if self.gradients else ()


CRITERIA: Registry[Criterion] = registries.CRITERIA


def unit_scores(
    name: str, statistics: Mapping[str, np.ndarray], shape: ModuleShape, **lots: int
) -> np.ndarray:
    """Importance per unit [units], float64, by the criterion ``name``: the sum over the channels
    that the unit owns. ``lots`` and what is raised: see :func:`channel_scores`."""
    channels = channel_scores(name, statistics, shape, **lots)
    return channels.reshape(shape.units, shape.unit_width).sum(axis=1)


def channel_scores(
    name: str,
    statistics: Mapping[str, np.ndarray],
    shape: ModuleShape,
    *,
    seed: int = 0,
    block: int = 0,
) -> np.ndarray:
    """Importance per level-2 input channel [units·unit_width], float64, by the criterion ``name``.
    ``seed`` and ``block`` matter only to criteria that draw lots.

    Raises NeedsMeasurement when the measurement was made without the gradient pass.
    """
    entry = CRITERIA.entry(name)
    if not entry.value.gradients <= statistics.keys():
        raise NeedsMeasurement(entry.title)
    rng = np.random.default_rng((seed, block, KINDS.index(shape.kind)))
    return np.asarray(entry.value.score(statistics, shape, rng), dtype=np.float64)


def in_proj_sum(
    statistics: Mapping[str, np.ndarray], shape: ModuleShape, what: str
) -> np.ndarray | float:
    """Sum of ``P_what`` over the level-1 projections P, per channel [units·unit_width].

    A key or value row belongs to all query heads of its group: each gets an equal share.
    """
    total: np.ndarray | float = 0.0
    for name in IN_PROJ:
        rows = statistics.get(f"{name}_{what}")
        if rows is not None:
            total = total + spread(rows, shape) * (len(rows) / (shape.units * shape.unit_width))
    return total


def spread(rows: np.ndarray, shape: ModuleShape) -> np.ndarray:
    """Values per level-1 row as values per channel [units·unit_width], float64: rows of a
    key/value head are repeated for each query head of its group."""
    heads = rows.astype(np.float64).reshape(-1, shape.unit_width)
    return heads.repeat(shape.units // len(heads), axis=0).ravel()
