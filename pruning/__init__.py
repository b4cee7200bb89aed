"""Headroom: structured pruning of Transformer language models without retraining.

``load → measure → plan → apply → evaluate → save``. Importing the package is cheap: torch is
imported only when a function that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "load": "pruning.sources",
    "prune": "pruning.pipeline",
    "measure_model": "pruning.pipeline",
    "make_plan": "pruning.planning",
    "perplexity": "pruning.evaluate",
    "generate": "pruning.evaluate",
    "save": "pruning.checkpoint",
    "Recipe": "pruning.recipe",
    "Measurement": "pruning.measurement",
    "Plan": "pruning.plan",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pruning' has no attribute {name!r}")
