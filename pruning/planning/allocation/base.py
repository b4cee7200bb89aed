"""What an allocation is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pruning import registries
from pruning.utils.registry import Registry

if TYPE_CHECKING:
    from pruning.artifacts.measurement import Measurement
    from pruning.artifacts.recipe import Recipe


@dataclass(frozen=True)
class BlockRatios:
    """Share of heads and of FFN channels that must go in one block, each in [0, 1). ``policy``:
    how its heads go under grouped queries; None: as the recipe says."""

    heads: float
    ffn: float
    policy: str | None = None


@dataclass(frozen=True)
class Allocation:
    """``allocate``: ``(measurement, recipe, blocks in range) -> one entry per block in range``.
    ``needs_loss_curves``: it needs the expected losses."""

    allocate: Callable[[Measurement, Recipe, range], list[BlockRatios]]
    needs_loss_curves: bool = False


ALLOCATIONS: Registry[Allocation] = registries.ALLOCATIONS
