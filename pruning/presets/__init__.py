"""Presets: whole methods by one name. One file each."""

from pruning.presets.base import PRESETS, with_preset
from pruning.presets import best, fast, paper, second_moment, flap  # noqa: F401  (they register)
from pruning.presets import wanda_sp, llm_pruner, magnitude, random  # noqa: F401

__all__ = ["PRESETS", "with_preset"]
