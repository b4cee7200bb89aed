"""Allocations: how much each block and module gives up. One file each."""

from pruning.allocation.base import ALLOCATIONS, Allocation, BlockRatios
from pruning.allocation import uniform  # noqa: F401  (it registers)

__all__ = ["ALLOCATIONS", "Allocation", "BlockRatios"]
