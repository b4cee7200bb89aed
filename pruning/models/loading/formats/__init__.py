"""Formats of quantised checkpoints that are made ordinary weights of, one file each; the names are
those of ``quant_method`` in a config. All others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruning.models.loading.formats.base import Checkpoint, Format
from pruning.models.loading.formats.bitsandbytes import BITSANDBYTES
from pruning.models.loading.formats.compressed_tensors import COMPRESSED_TENSORS
from pruning.models.loading.formats.fp8 import FP8

__all__ = ["FORMATS", "Checkpoint", "Format", "format_of"]

FORMATS = {"fp8": FP8, "bitsandbytes": BITSANDBYTES, "compressed-tensors": COMPRESSED_TENSORS}


def format_of(settings: Any) -> Format | None:
    """The format that the ``quantization_config`` of a config speaks of, if it is one of these."""
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    return FORMATS.get(method) if isinstance(method, str) else None
