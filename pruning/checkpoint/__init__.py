"""Pruned models on disk, in every form, with recipe, report and card.

The forms can be listed without torch; it is imported when something is written.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pruning.checkpoint.forms import FORMS, FormOptions

_LAZY = {
    "Evaluation": "pruning.checkpoint.records",
    "export": "pruning.checkpoint.saving",
    "parts_of": "pruning.checkpoint.parts",
    "save": "pruning.checkpoint.saving",
    "write": "pruning.checkpoint.saving",
}

__all__ = ["FORMS", "FormOptions"]
__all__ += list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pruning.checkpoint' has no attribute {name!r}")
