"""What a recovery is: what happens before the cut, and how out_proj is finished after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pruning import registries
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.recovery_rule import ENOUGH_WINDOWS
from pruning.utils.registry import Registry

if TYPE_CHECKING:
    from pruning.recovery.solvers.layer_fit import Fit, OutputProjectionFit

Finish = Callable[["OutputProjectionFit"], "Fit"]
"""Gives the kept channels' out_proj weights from the module's normal equations."""


@dataclass(frozen=True)
class Recovery:
    """``reconstructs``: in_proj and out_proj are fitted before the cut (Algorithms 1, 3, 4).

    ``uses_tokens``: weights depend on the calibration text. ``everywhere``: it can
    also repair modules that lose nothing but come after a cut. ``solves``: what its least squares
    of a module take, in those of a refit. ``adds_bias``: out_proj has a bias afterwards whatever
    the recipe says. ``refits``: out_proj is fitted to the units that stay. ``parameters``: paths of
    the recipe's fields that are its own.
    """

    finish: Finish
    reconstructs: bool = False
    uses_tokens: bool = True
    everywhere: bool = False
    solves: float = 1.0
    adds_bias: bool = False
    refits: bool = False
    parameters: tuple[str, ...] = ()


RECOVERIES: Registry[Recovery] = registries.RECOVERIES

FEWEST_HELD_OUT, MOST_HELD_OUT = 4, 32
"""Windows that a recovery is judged on: a quarter as many as it was fitted to, within these."""


def copies_of(recipe: Recipe) -> int:
    """Augmentations per window of the recovery's text; none where nothing is fitted."""
    rule = recipe.recovery
    if not RECOVERIES[rule.method].uses_tokens:
        return 0
    if rule.copies == "auto":
        samples = rule.samples or recipe.calibration.samples
        return min(max(round(ENOUGH_WINDOWS / samples) - 1, 0), 64)
    return rule.copies


def eliminates(recipe: Recipe) -> bool:
    """Whether units go by elimination under the refit."""
    return RECOVERIES[recipe.recovery.method].refits and recipe.recovery.choice == "elimination"


def held_out_windows(recipe: Recipe) -> int:
    """Windows on which the recovered model is compared with the plain cut; 0: it is not."""
    rule = recipe.recovery
    if not (rule.keep_better and RECOVERIES[rule.method].uses_tokens):
        return 0
    return held_out_of(recipe)


def held_out_of(recipe: Recipe) -> int:
    """How many windows are enough to judge what was fitted to the recipe's text."""
    samples = max(recipe.calibration.samples, recipe.recovery.samples or 0)
    return min(max(samples // 4, FEWEST_HELD_OUT), MOST_HELD_OUT)
