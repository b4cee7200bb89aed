"""Headroom: structured pruning of Transformer language models without retraining.

``load → measure → plan → apply → evaluate → save``. Importing the package is cheap: torch is
imported only when a function that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pruning.utils.version import __version__ as __version__

_LAZY = {
    "load": "pruning.models.loading",
    "prune": "pruning.api",
    "PrunedModel": "pruning.api",
    "measure_model": "pruning.pipeline",
    "make_plan": "pruning.planning.planner",
    "perplexity": "pruning.evaluate",
    "generate": "pruning.evaluate",
    "save": "pruning.checkpoint",
    "Recipe": "pruning.artifacts.recipe",
    "Measurement": "pruning.artifacts.measurement",
    "Plan": "pruning.artifacts.plan",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pruning' has no attribute {name!r}")
