"""Tunings: training after the cut. One file each; importing needs no torch."""

from pruning.tuning.base import TUNINGS, Tuning, check_installed, check_tuning, held_out_for_tuning

__all__ = ["TUNINGS", "Tuning", "check_installed", "check_tuning", "held_out_for_tuning"]
