"""What a scoring criterion is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pruning.registry import Registry
from pruning.shape import ModuleShape

Score = Callable[[Mapping[str, np.ndarray], ModuleShape], np.ndarray]
"""Maps a module's statistics to one importance per level-2 input channel [units·unit_width]."""

SCORES: Registry[Score] = Registry("criterion")


def unit_scores(score: Score, statistics: Mapping[str, np.ndarray], shape: ModuleShape):
    """Importance per unit [units], float64: the sum over the channels that the unit owns."""
    channels = np.asarray(score(statistics, shape), dtype=np.float64)
    return channels.reshape(shape.units, shape.unit_width).sum(axis=1)
