"""The model that was pruned, as the card names it: hub id and licence, where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from yaml import YAMLError

from pruning.models.loading.demo import LICENCE, REPOSITORY
from pruning.models.loading.loaded import LoadedModel
from pruning.utils.hub import is_hub_id, is_reachable

CARD = "README.md"
_TERMS = ("license_name", "license_link", "language")


@dataclass(frozen=True)
class Origin:
    """``name`` for people; ``repository`` is a hub id; ``terms``: what the card says beside the
    licence's own name (``license_name`` and ``license_link`` of licences that the hub has no
    name for, ``language``)."""

    name: str
    repository: str | None
    licence: str | None
    terms: Mapping[str, Any] = field(default_factory=dict)


def origin_of(dense: LoadedModel) -> Origin:
    """What is known of a model that was loaded to be pruned; never raises."""
    if dense.source == "demo":
        return Origin(REPOSITORY, REPOSITORY, LICENCE)
    folder = Path(dense.source).expanduser()
    if folder.is_dir():
        return origin_of_folder(folder)
    if is_hub_id(dense.source):
        card = front_matter(_hub_card(dense.source, dense.revision))
        return _of_card(card, dense.source, dense.source)
    return Origin(short_name(dense.source), None, None)


def origin_of_folder(folder: Path) -> Origin:
    """What the folder's own card says: of a model pruned before, the model it came from."""
    card = front_matter(folder / CARD)
    base = _text(card.get("base_model"))
    return _of_card(card, base or short_name(str(folder)), base)


def _of_card(card: Mapping[str, Any], name: str, repository: str | None) -> Origin:
    terms = {key: card[key] for key in _TERMS if card.get(key)}
    link = terms.get("license_link")
    if isinstance(link, str) and repository and "://" not in link:  # a file of that repository
        terms["license_link"] = f"https://huggingface.co/{repository}/blob/main/{link}"
    return Origin(name, repository, _text(card.get("license")), terms)


def _hub_card(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import hf_hub_download

    try:
        known = {"revision": revision, "local_files_only": not is_reachable()}
        return Path(hf_hub_download(repository, CARD, **known))
    except Exception:  # offline, or no card: the licence stays unknown
        return None


def front_matter(path: Path | None) -> dict[str, Any]:
    """The YAML head of a model card; empty when there is none or it cannot be read."""
    try:
        return (path and metadata_load(path)) or {}
    except (OSError, ValueError, YAMLError):  # ValueError: no UTF-8, or no mapping
        return {}


def _text(value: Any) -> str | None:
    """The value as one word; cards may also give a list."""
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def short_name(name: str) -> str:
    """The last part of a path or hub id."""
    return name.rstrip("/").rsplit("/", 1)[-1]
