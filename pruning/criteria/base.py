"""What a criterion is, and what several of them need.

Add one: a file in this folder with a function of type :data:`Score` and a call of
``CRITERIA.add("name", Criterion(function), title=..., summary=..., source=..., cost=...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pruning import registries
from pruning.artifacts.shapes import KINDS, ModuleShape
from pruning.utils.errors import NeedsMeasurement
from pruning.utils.registry import Registry

Statistics = Mapping[str, np.ndarray]
"""What was measured of a module, by name; see :mod:`pruning.artifacts.measurement`."""

Score = Callable[[Statistics, ModuleShape, np.random.Generator], np.ndarray]
"""``(statistics, shape, rng) -> importance [units·unit_width]``, one value for each channel
that the output projection reads."""

IN_PROJ = ("query", "key", "value", "up", "gate")
"""Input projections by name; a module has those of its kind."""


@dataclass(frozen=True)
class Criterion:
    """``gradients``: names of the statistics it takes from the gradient pass (none: the forward
    pass is enough). ``in_proj``: it takes statistics of the input projections' outputs from that.
    ``updates``: it can be taken again from the pruned stream, so re-scoring makes sense; otherwise
    the planned decision is kept."""

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


def measured_with_gradients(name: str) -> Criterion:
    """A criterion that is a statistic [units·unit_width] of the gradient pass as it stands."""
    return Criterion(
        lambda statistics, shape, rng: statistics[name], gradients=frozenset({name}), updates=False
    )


def unit_scores(name: str, statistics: Statistics, shape: ModuleShape, **seeds: int) -> np.ndarray:
    """Importance per unit [units], float64, by the criterion ``name``: the sum over the channels
    that the unit owns. ``seeds`` and what is raised: see :func:`channel_scores`."""
    channels = channel_scores(name, statistics, shape, **seeds)
    return channels.reshape(shape.units, shape.unit_width).sum(axis=1)


def channel_scores(
    name: str, statistics: Statistics, shape: ModuleShape, *, seed: int = 0, block: int = 0
) -> np.ndarray:
    """Importance per channel that the output projection reads [units·unit_width], float64, by the
    criterion ``name``. ``seed`` and ``block`` matter only to criteria that draw random numbers.

    Raises NeedsMeasurement when the measurement was made without the gradient pass.
    """
    entry = CRITERIA.entry(name)
    if not entry.value.gradients <= statistics.keys():
        raise NeedsMeasurement(entry.title)
    rng = np.random.default_rng((seed, block, KINDS.index(shape.kind)))
    return np.asarray(entry.value.score(statistics, shape, rng), dtype=np.float64)


def in_proj_sum(statistics: Statistics, shape: ModuleShape, what: str) -> np.ndarray | float:
    """Sum of ``P_what`` over the input projections P, per channel [units·unit_width].

    A key or value row belongs to all query heads of its group: each gets an equal share.
    """
    total: np.ndarray | float = 0.0
    for name in IN_PROJ:
        rows = statistics.get(f"{name}_{what}")
        if rows is not None:
            total = total + spread(rows, shape) * (len(rows) / (shape.units * shape.unit_width))
    return total


def spread(rows: np.ndarray, shape: ModuleShape) -> np.ndarray:
    """Values per row of an input projection as values per channel [units·unit_width], float64:
    rows of a key/value head are repeated for each query head of its group."""
    heads = rows.astype(np.float64).reshape(-1, shape.unit_width)
    return heads.repeat(shape.units // len(heads), axis=0).ravel()
