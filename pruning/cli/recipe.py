"""A recipe from a file and the options that override it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pruning.artifacts.recipe import Recipe
from pruning.presets import with_preset
from pruning.utils.errors import UsageError

# option -> (section of the recipe, field)
_FIELDS = {
    "revision": ("model", "revision"),
    "dtype": ("model", "dtype"),
    "calibration": ("calibration", "source"),
    "text_field": ("calibration", "text_field"),
    "bos": ("calibration", "bos"),
    "samples": ("calibration", "samples"),
    "seq_len": ("calibration", "seq_len"),
    "head_threshold": ("heads", "threshold"),
    "head_ratio": ("heads", "ratio"),
    "head_policy": ("heads", "policy"),
    "head_score": ("heads", "score"),
    "ffn_ratio": ("ffn", "ratio"),
    "ffn_score": ("ffn", "score"),
    "recovery": ("recovery", "method"),
    "tune": ("tune", "method"),
    "tune_epochs": ("tune", "epochs"),
    "keep": ("budget", "kept"),
    "megabytes": ("budget", "megabytes"),
    "spare_heads": ("budget", "spare_heads"),
    "multiple": ("ffn", "multiple"),
}


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the command asks for; raises UsageError in one line."""
    path = getattr(arguments, "recipe", None)
    base = Recipe.read(Path(path)) if path else Recipe()
    if getattr(arguments, "preset", None) is not None:
        base = with_preset(base, arguments.preset)
    changes: dict[str, Any] = {"model": {"source": arguments.model}}
    if path and base.model.source != arguments.model and arguments.revision is None:
        # a revision belongs to the recipe's model, not to the one named here
        changes["model"]["revision"] = None
    for option, (section, field) in _FIELDS.items():
        value = getattr(arguments, option, None)
        if value is not None:
            changes.setdefault(section, {})[field] = value
    for option in ("seed", "allocation"):
        if getattr(arguments, option, None) is not None:
            changes[option] = getattr(arguments, option)
    if getattr(arguments, "blocks", None) is not None:
        changes["blocks"] = parse_range(arguments.blocks)
    return base.changed(**changes)


def parse_range(text: str) -> dict[str, int | None]:
    """``START:END`` (either may be empty) as a section of the recipe; raises UsageError."""
    start, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return {"start": int(start or 0), "end": int(end) if end else None}
    except ValueError:
        raise UsageError(f"--blocks {text!r} is not of the form START:END, like 3:28.") from None
