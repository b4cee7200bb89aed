"""Recoveries: what is done for the units that stay. One file each; importing needs no torch."""

from pruning.recovery.base import RECOVERIES, Recovery, copies_of, eliminates, held_out_windows

__all__ = ["RECOVERIES", "Recovery", "copies_of", "eliminates", "held_out_windows"]
