"""What a preset is: the settings of a recipe that make up a method, without its size.

Add one: a YAML file in this folder with ``name``, ``title``, ``summary``, ``source``, perhaps
``place`` (its place in lists) and ``settings``, which are sections of a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pruning import registries
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import Calibration
from pruning.utils import plain_yaml
from pruning.utils.errors import UsageError, one_line
from pruning.utils.registry import COSTS, LAST, Cost, Entry, Registry

Preset = Mapping[str, Any]
"""Sections of a recipe. Model, calibration text, size (ratios, budget) and seed are not its."""

PRESETS: Registry[Preset] = registries.PRESETS

_KEPT = {
    **dict.fromkeys(("model", "blocks", "budget", "by_hand", "marks", "seed"), None),
    "calibration": tuple(name for name in Calibration.model_fields if name != "curve_samples"),
    "heads": ("ratio",),
    "ffn": ("ratio", "multiple"),
}
"""What of a recipe no preset changes: whole sections (None), or fields of one."""


class PresetFile(BaseModel):
    """A preset as its file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    summary: str
    source: str
    place: int = LAST
    settings: dict[str, Any]


def with_preset(recipe: Recipe, name: str) -> Recipe:
    """``recipe`` with the method of the preset ``name``; what the preset does not name goes back
    to the default, except model, calibration, blocks, size and seed. Raises UsageError."""
    return _with_settings(recipe, PRESETS[name])


def read_preset(path: Path) -> Entry[Preset]:
    """The preset of a YAML file, whose cost is that of the dearest thing it uses. Raises
    UsageError, one sentence, when a key or a setting is unknown or wrong."""
    try:
        preset = PresetFile.model_validate(plain_yaml.parse(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise UsageError(f"{where}: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"it is not valid YAML: {one_line(error)}.") from None
    for section, value in preset.settings.items():
        fields = _KEPT.get(section, ())
        if fields is None or (isinstance(value, Mapping) and not value.keys().isdisjoint(fields)):
            raise UsageError(
                f"{section} is among what a preset leaves alone (model, text, blocks, size, seed)."
            )
    cost = cost_of(_with_settings(Recipe(), preset.settings, "its recipe"))
    return Entry(
        preset.name,
        preset.title,
        preset.summary,
        preset.source,
        preset.settings,
        cost,
        preset.place,
    )


def _with_settings(recipe: Recipe, settings: Preset, origin: str = "The recipe") -> Recipe:
    data, before = Recipe().model_dump(), recipe.model_dump()
    for section, fields in _KEPT.items():
        if fields is None:
            data[section] = before[section]
        else:
            data[section] |= {field: before[section][field] for field in fields}
    for section, value in settings.items():
        nested = isinstance(value, Mapping) and isinstance(data.get(section), Mapping)
        data[section] = {**data[section], **value} if nested else value
    return Recipe.parse(data, origin)


def cost_of(recipe: Recipe) -> Cost:
    """The cost of the dearest thing that ``recipe`` uses."""
    used = (
        registries.CRITERIA.entry(recipe.heads.score),
        registries.CRITERIA.entry(recipe.ffn.score),
        registries.ALLOCATIONS.entry(recipe.allocation),
        registries.RECOVERIES.entry(recipe.recovery.method),
        registries.TUNINGS.entry(recipe.tune.method),
    )
    return max((entry.cost for entry in used), key=COSTS.index)
