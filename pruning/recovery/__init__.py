"""Recoveries: what is done for the units that stay. One file each; importing needs no torch."""

from pruning.recovery.base import RECOVERIES, Recovery
from pruning.recovery import none, bias, reconstruct, refit, full  # noqa: F401  (they register)

__all__ = ["RECOVERIES", "Recovery"]
