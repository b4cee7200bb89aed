"""The ``headroom`` key of ``config.json``: what every block keeps, and the shapes that follow.

Our own key, since ``per_layer_config`` is not consumed by every family.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pruning.checkpoint.layout import Layout
from pruning.errors import SourceError
from pruning.shape import Widths

KEY = "headroom"
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """The key's content: the class that was pruned, its widths, and its modules' shapes."""

    architecture: str
    widths: tuple[Widths, ...]
    layout: Layout


def recorded(model: Any, widths: Sequence[Widths]) -> tuple[Widths, ...]:
    """``widths`` with the biases that an earlier run added to the loaded model as well."""
    before = (getattr(model.config, KEY, None) or {}).get("blocks") or [{}] * len(widths)
    return tuple(
        replace(
            width,
            **{
                name: getattr(width, name) or old.get(name, False)
                for name in ("added_attention_bias", "added_ffn_bias")
            },
        )
        for width, old in zip(widths, before, strict=True)
    )


def plain_config(config: Any) -> Any:
    """A copy of ``config`` as the dense architecture's own, without our key."""
    config = copy.deepcopy(config)
    for name in (KEY, "auto_map"):
        if hasattr(config, name):
            delattr(config, name)
    return config


def to_config(record: Record) -> dict[str, Any]:
    """The value of the key."""
    return {
        "format": FORMAT,
        "architecture": record.architecture,
        "blocks": [asdict(width) for width in record.widths],
        **asdict(record.layout),
    }


def from_config(value: Any, blocks: int, origin: str) -> Record:
    """Read the key; raises SourceError in one line when it is damaged or from the future."""
    try:
        if value["format"] != FORMAT:
            raise SourceError(
                f"{origin} was saved in format {value['format']!r}, this Headroom reads format "
                f"{FORMAT}; use a matching release."
            )
        widths = tuple(Widths(**block) for block in value["blocks"])
        sizes = [(w.heads, w.kv_heads, w.channels) for w in widths]
        if any(not isinstance(n, int) or n < 1 for size in sizes for n in size):
            raise ValueError("a width is not a positive whole number")
        if len(widths) != blocks:
            raise ValueError(f"{len(widths)} widths for {blocks} blocks")
        layout = Layout(*(value[part.name] for part in fields(Layout)))
        for part in (layout.layers, layout.attributes):
            if not isinstance(part, dict) or not all(isinstance(v, dict) for v in part.values()):
                raise ValueError("its layers are not a table")
        return Record(value["architecture"], widths, layout)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{origin} has a damaged config.json ({error}); save it again.") from None
