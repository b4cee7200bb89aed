"""Pruned models on disk: safetensors, per-block widths, recipe, report, card."""

from pruning.checkpoint.save import save

__all__ = ["save"]
