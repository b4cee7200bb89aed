"""What a preset is: the settings of a recipe that make up a method, without its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pruning import registries
from pruning.utils.registry import Registry

if TYPE_CHECKING:
    from pruning.artifacts.recipe import Recipe

Preset = Mapping[str, Any]
"""Sections of a recipe. Model, calibration text, size (ratios, budget) and seed are not its."""

PRESETS: Registry[Preset] = registries.PRESETS


def with_preset(recipe: Recipe, name: str) -> Recipe:
    """``recipe`` with the method of the preset ``name``; what the preset does not name goes back
    to the default, except model, calibration, blocks, size and seed. Raises UsageError."""
    from pruning.artifacts.recipe import Recipe

    preset, data = PRESETS[name], Recipe().model_dump()
    before = recipe.model_dump()
    kept = ("model", "calibration", "blocks", "budget", "by_hand", "marks", "seed")
    data |= {section: before[section] for section in kept}
    for section, fields in (("heads", ("ratio",)), ("ffn", ("ratio", "multiple"))):
        data[section] |= {field: before[section][field] for field in fields}
    for section, value in preset.items():
        data[section] = {**data[section], **value} if isinstance(value, Mapping) else value
    return Recipe.parse(data)
