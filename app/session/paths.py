"""Which files of the server visitors may name: only those below the configured roots."""

from __future__ import annotations

import os
import re
from pathlib import Path

from app import settings
from pruning.artifacts.recipe import Recipe
from pruning.data.corpora.base import CORPORA
from pruning.utils.errors import UsageError
from pruning.utils.hub import is_hub_id


def roots() -> list[Path]:
    """Folders given in HEADROOM_ROOTS; the working directory when it is not set."""
    return settings.current().folders()


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
    """Raise UsageError when a model source names a file outside the roots, or one that is reached
    through a link in a folder inside, or when this server does not load it."""
    settings.current().check_model(source)
    if is_path(source):
        place = allowed(source)
        for link in _links(place):
            allowed(str(link))


def _links(place: Path) -> list[Path]:
    """Symbolic links in the model folder ``place``, or beside it where it is a part of a file."""
    if not place.is_dir():
        stem = re.sub(r"\d{5}-of-\d{5}\.gguf$", "", place.name)
        return [
            p for p in place.parent.glob("*.gguf") if p.name.startswith(stem) and p.is_symlink()
        ]
    if not (place / "config.json").exists():  # no model: loading says so
        return []
    found = (Path(at, name) for at, folders, files in os.walk(place) for name in folders + files)
    return [path for path in found if path.is_symlink()]


def check_target(text: str) -> Path:
    """Where a visitor may save; raises UsageError where that is not, or not on this server."""
    if not settings.current().save:
        raise UsageError("Nothing is saved on this server; prepare a download instead.")
    return allowed(text)


def check_corpus(source: str) -> None:
    """Raise UsageError when a corpus names a file outside the roots."""
    if source not in CORPORA:
        allowed(source)


def check_recipe(recipe: Recipe) -> None:
    """Both of the above for an uploaded or drafted recipe."""
    check_model(recipe.model.source)
    check_corpus(recipe.calibration.source)
