"""The pruned weights as a smaller model of the original architecture, told by its config alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from pruning.checkpoint.biases import config_with_biases
from pruning.checkpoint.load import skeleton
from pruning.checkpoint.padding import check_same, take_the_rest
from pruning.checkpoint.parts import Parts
from pruning.checkpoint.widths import plain_config
from pruning.errors import Unsupported

Shape = tuple[int, int, int]
"""Heads, key/value heads, FFN channels."""

# names of the same setting in the config classes of transformers
_GROUPS = ("num_key_value_heads", "num_kv_heads")
_CHANNELS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")


def uniform_model(parts: Parts) -> tuple[nn.Module, tuple[str, ...]]:
    """The pruned weights in a model that the config alone describes, and remarks.

    Raises Unsupported with the reason when there is no such config.
    """
    pruned, adapter = parts.model, parts.adapter
    shape = _one_shape(parts)
    config, remarks = config_with_biases(plain_config(pruned.config), parts)
    model = _built(config, shape, parts)
    if isinstance(model, str):
        raise Unsupported(f"{model.rstrip('.')}{_nearby(config, shape, parts)}.")
    take_the_rest(model, pruned, adapter)
    check_same(model, pruned, adapter)
    return model, remarks


def _one_shape(parts: Parts) -> Shape:
    """The widths all blocks share; raises Unsupported when they do not."""
    shapes = [(w.heads, w.kv_heads, w.channels) for w in parts.widths]
    if len(set(shapes)) == 1:
        return shapes[0]
    names = ("heads", "key/value heads", "FFN channels")
    spans = [
        f"{name} {min(sizes)} to {max(sizes)}"
        for name, sizes in zip(names, zip(*shapes, strict=True), strict=True)
        if len(set(sizes)) > 1
    ]
    raise Unsupported(
        f"The blocks differ in width ({', '.join(spans)}), and the uniform form needs the same in "
        "every block: prune all blocks at the same ratios without a threshold, or use the "
        "compact form."
    )


def _built(config: Any, shape: Shape, parts: Parts) -> nn.Module | str:
    """The model of these sizes without memory, or why there is none."""
    try:
        smaller = _resized(config, shape, parts)
        model = skeleton(smaller, torch.float32)
    except Exception as error:  # validators of config classes raise what they like
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # a config's validator puts its reason last, after the error's name
        reason = (lines or [type(error).__name__])[-1].removeprefix("ValueError: ")
        return f"{type(config).__name__} refuses {_told(shape)}: {reason}"
    width = parts.adapter.attention(parts.adapter.blocks(parts.model)[0]).unit_width
    block = parts.adapter.blocks(model)[0]
    attention, ffn = parts.adapter.attention(block), parts.adapter.ffn(block)
    if (attention.units, attention.groups, ffn.units) != shape or attention.unit_width != width:
        return (
            f"{type(config).__name__} has no setting that gives {_told(shape)} of width {width} "
            f"(it gives {attention.units}, {attention.groups} and {ffn.units} of width "
            f"{attention.unit_width})"
        )
    return model


def _resized(config: Any, shape: Shape, parts: Parts) -> Any:
    """The config of a smaller model of the same class; raises what its validators raise."""
    heads, groups, channels = shape
    data = config.to_dict()
    width = parts.adapter.attention(parts.adapter.blocks(parts.model)[0]).unit_width
    named = {"num_attention_heads": heads}
    named |= dict.fromkeys(_GROUPS, groups)
    named |= dict.fromkeys(_CHANNELS, channels)
    fields = {config.attribute_map.get(name, name): value for name, value in named.items()}
    changes = {name: value for name, value in fields.items() if name in data}
    if "head_dim" in data or width * heads != config.hidden_size:
        changes["head_dim"] = width
    return type(config).from_dict({**data, **changes})


def _nearby(config: Any, shape: Shape, parts: Parts) -> str:
    """The closest head counts that pruning can reach and the config class takes."""
    heads, groups, channels = shape
    original = parts.adapter.attention(parts.adapter.blocks(skeleton(config, config.dtype))[0])
    tried = sorted(
        set(_reachable(original.units, original.groups)) - {(heads, groups)},
        key=lambda pair: (abs(pair[0] - heads), -pair[0]),
    )
    for units, kept in tried[:12]:
        if not isinstance(_built(config, (units, kept, channels), parts), str):
            all_of_them = "all its " if units == original.units else ""
            return (
                f"; the nearest that works is {all_of_them}{units} heads on {kept} key/value "
                "heads in every block; or use the compact form"
            )
    return "; use the compact form"


def _reachable(units: int, groups: int) -> Iterator[tuple[int, int]]:
    """Head and group counts that cutting whole groups, or alike in every group, leads to."""
    each = units // groups
    yield from ((each * left, left) for left in range(1, groups + 1))
    yield from ((left * groups, groups) for left in range(1, each + 1))


def _told(shape: Shape) -> str:
    return f"{shape[0]} heads on {shape[1]} key/value heads with {shape[2]} FFN channels"
