"""Families of models, described one file each: where the prunable modules of a block are."""

from pruning.adapters.base import FAMILIES, ModelAdapter, adapter_for, supported

__all__ = ["FAMILIES", "ModelAdapter", "adapter_for", "supported"]
