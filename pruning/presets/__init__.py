"""Presets: whole methods by one name. One YAML file each."""

from pruning.presets.base import PRESETS, with_preset

__all__ = ["PRESETS", "with_preset"]
