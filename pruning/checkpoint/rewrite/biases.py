"""Biases that recovery added, in architectures that have none: the config's own switches.

``LlamaConfig`` can give all its attention or FFN layers biases; the ones that pruning did not
add are then zero.
"""

from __future__ import annotations

from typing import Any

from pruning.adapters.base import ModelAdapter
from pruning.artifacts.shapes import KINDS, ModuleKind
from pruning.checkpoint.parts import Parts
from pruning.models.compact.load import skeleton
from pruning.utils.errors import Unsupported


def config_with_biases(config: Any, parts: Parts) -> tuple[Any, tuple[str, ...]]:
    """``config`` with a place for every ``out_proj`` bias of the pruned model, and remarks.

    Raises Unsupported when the config class has no switch for such a bias.
    """
    remarks = []
    adapter = parts.adapter
    blocks = adapter.blocks(parts.model)
    for kind in KINDS:
        needed = any(adapter.module(block, kind).out_proj.bias is not None for block in blocks)
        if not needed or _has_place(config, adapter, kind):
            continue
        switch, config = _switched(config, adapter, kind)
        remarks.append(
            f"Recovery added biases to {kind} output layers, so `{switch}` is on; the biases of "
            "other layers that this switch brings are zero. Not every server reads such biases; "
            "check that yours does."
        )
    return config, tuple(remarks)


def _switched(config: Any, adapter: ModelAdapter, kind: ModuleKind) -> tuple[str, Any]:
    data = config.to_dict()
    for name in sorted(data):
        if "bias" in name and data[name] is False:
            changed = type(config).from_dict({**data, name: True})
            if _has_place(changed, adapter, kind):
                return name, changed
    raise Unsupported(
        f"Recovery added biases to the {kind} output layers, and {type(config).__name__} has no "
        "setting for them; prune with a recovery that adds none (refit with intercept 'auto'), "
        "or use the compact form."
    )


def _has_place(config: Any, adapter: ModelAdapter, kind: ModuleKind) -> bool:
    model = skeleton(config, config.dtype)
    blocks = adapter.blocks(model)
    return all(adapter.module(block, kind).out_proj.bias is not None for block in blocks)
