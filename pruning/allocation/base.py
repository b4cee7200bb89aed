"""What an allocation is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pruning.registry import Registry

if TYPE_CHECKING:
    from pruning.measurement import Measurement
    from pruning.recipe import Recipe


@dataclass(frozen=True)
class BlockRatios:
    """Share of heads and of FFN channels that must go in one block, each in [0, 1)."""

    heads: float
    ffn: float


Allocation = Callable[["Measurement", "Recipe", range], list[BlockRatios]]
"""``(measurement, recipe, blocks in range) -> one entry per block in range``."""

ALLOCATIONS: Registry[Allocation] = Registry("allocation")
