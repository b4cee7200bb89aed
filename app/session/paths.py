"""Which files of the server visitors may name: only those below the configured roots."""

from __future__ import annotations

import os
from pathlib import Path

from pruning.artifacts.recipe import Recipe
from pruning.data.corpora.base import CORPORA
from pruning.utils.errors import UsageError
from pruning.utils.hub import is_hub_id

VARIABLE = "HEADROOM_ROOTS"


def roots() -> list[Path]:
    """Folders given in HEADROOM_ROOTS; the working directory when it is not set."""
    configured = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    return [Path(part).expanduser().resolve() for part in configured] or [Path.cwd().resolve()]


def inside_roots() -> str:
    """Which folders may be named, in words."""
    return "Inside: " + ", ".join(f"`{root}`" for root in roots())


def allowed(text: str) -> Path:
    """The resolved path; raises UsageError when links or '..' lead it out of every root."""
    path = Path(os.path.expanduser(text)).resolve()  # this one takes any name
    if not any(path.is_relative_to(root) for root in roots()):
        places = " or ".join(str(root) for root in roots())
        raise UsageError(
            f"{text} lies outside the folders this server may use; choose a path inside {places}."
        )
    return path


def is_path(source: str) -> bool:
    """True for a model source that names a place on disk rather than a hub id."""
    if source == "demo":
        return False
    looks_local = source.endswith(".gguf") or not is_hub_id(source)
    return looks_local or os.path.exists(os.path.expanduser(source))


def check_model(source: str) -> None:
    """Raise UsageError when a model source names a file outside the roots."""
    if is_path(source):
        allowed(source)


def check_corpus(source: str) -> None:
    """Raise UsageError when a corpus names a file outside the roots."""
    if source not in CORPORA:
        allowed(source)


def check_recipe(recipe: Recipe) -> None:
    """Both of the above for an uploaded or drafted recipe."""
    check_model(recipe.model.source)
    check_corpus(recipe.calibration.source)
