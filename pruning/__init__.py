"""Headroom: structured pruning of Transformer language models without retraining.

``load → measure → plan → apply → evaluate → save``. Importing the package is cheap: torch is
imported only when a function that needs it is first used.

    small = pruning.prune("demo", preset="fast", keep=0.8)
    small.save_pretrained("out/small")
    again = pruning.load("out/small")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pruning.utils.version import __version__ as __version__

if TYPE_CHECKING:  # what editors and type checkers see; below, where each name is found
    from pruning.api import PrunedModel, prune
    from pruning.artifacts.measurement import Measurement
    from pruning.artifacts.plan import Plan
    from pruning.artifacts.recipe import Recipe
    from pruning.checkpoint.saving import save
    from pruning.evaluate.generation import generate
    from pruning.evaluate.perplexity import perplexity
    from pruning.models.loading.loader import load
    from pruning.pipeline import measure_model
    from pruning.planning.planner import make_plan

__all__ = [
    "Measurement",
    "Plan",
    "PrunedModel",
    "Recipe",
    "generate",
    "load",
    "make_plan",
    "measure_model",
    "perplexity",
    "prune",
    "save",
]

_MODULES = {
    "Measurement": "pruning.artifacts.measurement",
    "Plan": "pruning.artifacts.plan",
    "PrunedModel": "pruning.api",
    "Recipe": "pruning.artifacts.recipe",
    "generate": "pruning.evaluate",
    "load": "pruning.models.loading",
    "make_plan": "pruning.planning.planner",
    "measure_model": "pruning.pipeline",
    "perplexity": "pruning.evaluate",
    "prune": "pruning.api",
    "save": "pruning.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
