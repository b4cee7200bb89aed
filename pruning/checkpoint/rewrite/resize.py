"""The pruned weights as a smaller model of the original architecture, without code of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from pruning.adapters.base import ModelAdapter
from pruning.checkpoint.parts import Parts
from pruning.checkpoint.rewrite.biases import config_with_biases
from pruning.checkpoint.rewrite.pad import check_equivalent, copy_remaining
from pruning.models.compact.config_key import plain_config
from pruning.models.compact.load import skeleton
from pruning.models.loading.outline import Outline
from pruning.planning.checks import Outlook
from pruning.utils.errors import Unsupported


class Shape(NamedTuple):
    """What all blocks share: ``channels`` of an FFN, ``expert_channels`` of every expert; 0 where
    no block has one."""

    heads: int
    groups: int
    channels: int
    expert_channels: int


# names of the same setting in the config classes of transformers
_GROUPS = ("num_key_value_heads", "num_kv_heads")
_CHANNELS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_EXPERT_CHANNELS = "moe_intermediate_size"


def uniform_model(parts: Parts) -> tuple[nn.Module, tuple[str, ...]]:
    """The pruned weights in a model that the config alone describes, and remarks.

    Raises Unsupported with the reason when there is no such config.
    """
    pruned, adapter = parts.model, parts.adapter
    shape = _one_shape(adapter, adapter.blocks(pruned))
    config, remarks = config_with_biases(plain_config(pruned.config), parts)
    model = _built(config, shape, parts)
    if isinstance(model, str):
        raise Unsupported(f"{model.rstrip('.')}{_nearby(config, shape, parts)}.")
    copy_remaining(model, pruned, adapter)
    check_equivalent(model, pruned, adapter)
    return model, (*remarks, *_head_width(model, shape.heads, parts))


def _head_width(model: nn.Module, heads: int, parts: Parts) -> tuple[str, ...]:
    """A remark on the head width where it does not follow from the other sizes."""
    width = parts.adapter.attention(parts.adapter.blocks(model)[0]).unit_width
    size = model.config.hidden_size
    if heads * width == size:
        return ()
    return (
        f"Heads are {width} wide, as `head_dim` in the config says, and not the hidden size over "
        f"the number of heads ({size} / {heads}); current servers read `head_dim`, some old "
        "releases do not.",
    )


def _one_shape(adapter: ModelAdapter, blocks: Iterable[nn.Module]) -> Shape:
    """The widths all blocks share; raises Unsupported when they do not."""
    attention = [adapter.attention(block) for block in blocks]
    ffn = [adapter.ffn(block) for block in blocks]
    sizes_of = {
        "heads": {module.units for module in attention},
        "key/value heads": {module.groups for module in attention},
        "FFN channels": {module.units for module in ffn if not module.mixture},
        "channels of an expert": {m.units // m.experts for m in ffn if m.mixture},
    }
    return _shared(sizes_of)


def _shared(sizes_of: dict[str, set[int]]) -> Shape:
    if all(len(sizes) <= 1 for sizes in sizes_of.values()):
        return Shape(*(max(sizes, default=0) for sizes in sizes_of.values()))
    spans = [
        f"{name} {min(sizes)} to {max(sizes)}" for name, sizes in sizes_of.items() if len(sizes) > 1
    ]
    raise Unsupported(
        f"The blocks differ in width ({', '.join(spans)}), and the uniform form needs the same in "
        "every block: prune all blocks at the same ratios without a threshold, or use the "
        "compact form."
    )


def check_uniform(outline: Outline, outlook: Outlook) -> tuple[str, ...]:
    """Raise Unsupported when what a recipe leads to is sure to have no such config; returns a
    remark where that depends on the measurement."""
    shape = outline.shape
    if outlook.widths is None:
        if outlook.cuts and len(outlook.blocks) < len(shape.blocks):
            raise Unsupported(
                "Only some of the blocks are cut, and the uniform form needs the same widths in "
                "every block: widen the block range to all, or use the compact form."
            )
        return (
            "The uniform form needs the same widths in every block, which this recipe does not "
            "promise; if they differ, the compact form is written instead.",
        )
    pairs = list(zip(shape.blocks, outlook.widths, strict=True))
    sizes = _shared(
        {
            "heads": {width.heads for _, width in pairs},
            "key/value heads": {width.kv_heads for _, width in pairs},
            "FFN channels": {w.channels for block, w in pairs if block.ffn.experts == 1},
            "channels of an expert": {
                w.channels // block.ffn.experts for block, w in pairs if block.ffn.experts > 1
            },
        }
    )
    config = plain_config(outline.config)
    built = _built(config, sizes, outline)
    if isinstance(built, str):
        raise Unsupported(f"{built.rstrip('.')}{_nearby(config, sizes, outline)}.")
    return ()


def _built(config: Any, shape: Shape, parts: Parts | Outline) -> nn.Module | str:
    """The model of these sizes without memory, or why there is none."""
    try:
        smaller = _resized(config, shape, parts)
        model = skeleton(smaller, torch.float32)
    except Exception as error:  # validators of config classes raise what they like
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # a config's validator puts its reason last, after the error's name
        reason = (lines or [type(error).__name__])[-1].removeprefix("ValueError: ")
        return f"{type(config).__name__} refuses {_described(shape)}: {reason}"
    width = parts.adapter.attention(parts.adapter.blocks(parts.model)[0]).unit_width
    blocks = parts.adapter.blocks(model)
    built = _one_shape(parts.adapter, blocks)
    built_width = parts.adapter.attention(blocks[0]).unit_width
    if (built, built_width) != (shape, width):
        return (
            f"{type(config).__name__} has no setting that gives {_described(shape)}, heads of "
            f"width {width} (it gives {_described(built)}, of width {built_width})"
        )
    return model


def _resized(config: Any, shape: Shape, parts: Parts | Outline) -> Any:
    """The config of a smaller model of the same class; raises what its validators raise."""
    data = config.to_dict()
    width = parts.adapter.attention(parts.adapter.blocks(parts.model)[0]).unit_width
    named = {"num_attention_heads": shape.heads}
    named |= dict.fromkeys(_GROUPS, shape.groups)
    if _EXPERT_CHANNELS in data:
        named |= {_EXPERT_CHANNELS: shape.expert_channels} if shape.expert_channels else {}
        named |= dict.fromkeys(_CHANNELS, shape.channels) if shape.channels else {}
    else:
        named |= dict.fromkeys(_CHANNELS, shape.channels or shape.expert_channels)
    fields = {config.attribute_map.get(name, name): value for name, value in named.items()}
    changes = {name: value for name, value in fields.items() if name in data}
    if "head_dim" in data or width * shape.heads != config.hidden_size:
        changes["head_dim"] = width
    return type(config).from_dict({**data, **changes})


def _nearby(config: Any, shape: Shape, parts: Parts | Outline) -> str:
    """The closest head counts that pruning can reach and the config class takes."""
    original = parts.adapter.attention(parts.adapter.blocks(skeleton(config, config.dtype))[0])
    tried = sorted(
        set(_reachable(original.units, original.groups, shape.heads == shape.groups)) - {shape[:2]},
        key=lambda pair: (abs(pair[0] - shape.heads), -pair[0]),
    )
    for units, kept in tried[:12]:
        if not isinstance(_built(config, shape._replace(heads=units, groups=kept), parts), str):
            all_of_them = "all its " if units == original.units else ""
            return (
                f"; the nearest that works is {all_of_them}{units} heads on {kept} key/value "
                "heads in every block; or use the compact form"
            )
    return "; use the compact form"


def _reachable(units: int, groups: int, ungrouped: bool) -> Iterator[tuple[int, int]]:
    """Head and group counts that cutting whole groups, or alike in every group, leads to; or
    ``ungrouped`` blocks."""
    each = units // groups
    yield from ((each * left, left) for left in range(1, groups + 1))
    yield from ((left * groups, groups) for left in range(1, each + 1))
    if ungrouped:
        yield from ((left, left) for left in range(1, units + 1))


def _described(shape: Shape) -> str:
    ffn = [f"{shape.channels} FFN channels"] if shape.channels else []
    ffn += [f"{shape.expert_channels} channels of an expert"] if shape.expert_channels else []
    return f"{shape.heads} heads on {shape.groups} key/value heads with {' and '.join(ffn)}"
