"""Allocations: how much each block and module gives up. One file each."""

from pruning.allocation.base import ALLOCATIONS, Allocation, BlockRatios
from pruning.allocation import uniform  # noqa: F401  (they register)
from pruning.allocation import adaptive_layers, adaptive_modules, adaptive  # noqa: F401
from pruning.allocation import by_hand, predicted  # noqa: F401

__all__ = ["ALLOCATIONS", "Allocation", "BlockRatios"]
