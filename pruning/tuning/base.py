"""What a tuning is: which numbers of the pruned model are trained, and how fast.

Add one: a file in this folder that calls ``TUNINGS.add``; it imports torch inside its functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pruning import registries
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.tune_rule import TuneRule
from pruning.recovery.base import held_out_of
from pruning.utils.errors import UsageError
from pruning.utils.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from pruning.adapters import ModelAdapter
    from pruning.tuning.training.trainable import Trainable

Prepare = Callable[["nn.Module", "ModelAdapter", TuneRule, int], "Trainable"]
"""``prepare(model, adapter, rule, seed)``: what is trained of a float32 ``model``. Its modules may
be changed; its present parameters, which the dense model shares, keep their values."""

WHOLE = ("whole", "spread")
"""Placements in which every weight stays where it is used, as gradients need it."""


@dataclass(frozen=True)
class Tuning:
    """``prepare`` None: nothing is trained. ``learning_rate``: of AdamW where the recipe leaves it
    to the method. ``share(rule)``: about so much of the blocks' parameters is trained.
    ``refused(model, adapter)``: why a model, which may be on the meta device, cannot be tuned so;
    empty where it can. ``packages``: what must be installed. ``parameters``: fields of the recipe
    that matter only with it."""

    prepare: Prepare | None
    learning_rate: float = 0.0
    share: Callable[[TuneRule], float] = lambda rule: 0.0
    refused: Callable[[nn.Module, ModelAdapter], str] = lambda model, adapter: ""
    packages: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


TUNINGS: Registry[Tuning] = registries.TUNINGS


def held_out_for_tuning(recipe: Recipe) -> int:
    """Windows on which the tuned model is compared with the untuned one; 0: it is not."""
    rule = recipe.tune
    if not (rule.keep_better and TUNINGS[rule.method].prepare):
        return 0
    return held_out_of(recipe)


def check_installed(recipe: Recipe) -> None:
    """Raise UsageError, which says what to install, when the recipe's tuning lacks a package."""
    entry = TUNINGS.entry(recipe.tune.method)
    for package in entry.value.packages:
        if find_spec(package) is None:
            raise UsageError(
                f"Tuning by {entry.title} needs {package}; run: pip install 'headroom[tune]', or "
                "choose another method."
            )


def check_tuning(recipe: Recipe, model: nn.Module, adapter: ModelAdapter, placement: str) -> None:
    """Raise UsageError, before any work, when ``model`` (which may be on the meta device) cannot be
    tuned as ``recipe`` says where its blocks wait as ``placement`` says."""
    check_installed(recipe)
    entry = TUNINGS.entry(recipe.tune.method)
    if entry.value.prepare is None:
        return
    if placement not in WHOLE:
        raise UsageError(
            f"Tuning needs every weight on the device, and with placement {placement} blocks wait "
            "elsewhere; choose --placement whole, a smaller model, or no tuning."
        )
    why = entry.value.refused(model, adapter)
    if why:
        raise UsageError(f"Tuning by {entry.title} is not possible here: {why}.")
