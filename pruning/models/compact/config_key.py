"""The ``headroom`` key of ``config.json``: what every block keeps, and the shapes that follow.

Our own key, since ``per_layer_config`` is not consumed by every family.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from pruning.adapters.base import ModelAdapter
from pruning.artifacts.shapes import KINDS, ModuleKind, Widths
from pruning.models.compact.layout import Layout
from pruning.utils.errors import SourceError

KEY = "headroom"
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """The key's content: the class that was pruned, its widths, and its modules' shapes."""

    architecture: str
    widths: tuple[Widths, ...]
    layout: Layout


def counted(model: nn.Module, dense: nn.Module, adapter: ModelAdapter) -> tuple[Widths, ...]:
    """What every block of ``model`` keeps, counted on its layers; a bias of ``out_proj`` that
    ``dense`` (which may be on the meta device) does not have was added by some recovery."""

    def added(kind: ModuleKind, block: nn.Module, before: nn.Module) -> bool:
        biases = [adapter.module(side, kind).out_proj.bias for side in (block, before)]
        return biases[0] is not None and biases[1] is None

    widths = []
    for block, before in zip(adapter.blocks(model), adapter.blocks(dense), strict=True):
        attention, ffn = adapter.attention(block), adapter.ffn(block)
        biases = (added(kind, block, before) for kind in KINDS)
        widths.append(Widths(attention.units, attention.groups, ffn.units, *biases))
    return tuple(widths)


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
