"""Allocations: how much each block and module gives up. One file each."""

from pruning.planning.allocation.base import ALLOCATIONS, Allocation, BlockSparsity

__all__ = ["ALLOCATIONS", "Allocation", "BlockSparsity"]
