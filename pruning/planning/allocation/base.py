"""What an allocation is.

Add one: a file in this folder with a function ``(measurement, recipe, blocks in range) -> one
BlockSparsity per block`` and a call of ``ALLOCATIONS.add("name", Allocation(function), title=...,
summary=..., source=..., cost=...)``; what a budget leaves is said in :mod:`.budget`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pruning import registries
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.utils.registry import Registry


@dataclass(frozen=True)
class BlockSparsity:
    """Share of heads and of FFN channels that one block must lose, each in [0, 1). ``policy``:
    how its heads go under grouped queries; None: as the recipe says."""

    heads: float
    ffn: float
    policy: str | None = None


@dataclass(frozen=True)
class Allocation:
    """``allocate``: ``(measurement, recipe, blocks in range) -> one entry per block in range``.
    ``needs_loss_curves``: it reads them, so the measurement must have them. ``check``: ``(recipe,
    blocks in range)``, raises UsageError for what can be refused before anything is measured.
    ``parameters``: paths of the recipe's fields that are its own."""

    allocate: Callable[[Measurement, Recipe, range], list[BlockSparsity]]
    needs_loss_curves: bool = False
    check: Callable[[Recipe, range], None] = lambda recipe, blocks: None
    parameters: tuple[str, ...] = ()


ALLOCATIONS: Registry[Allocation] = registries.ALLOCATIONS
