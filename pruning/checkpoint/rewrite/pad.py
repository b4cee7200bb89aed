"""The pruned weights in the original shapes, with zeros in place of what was removed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapters.base import GROUPED, ModelAdapter, PrunableModule
from pruning.adapters.projection import (
    layer_like,
    layer_matrix,
    layer_owner,
    layer_shape,
    set_layer,
)
from pruning.artifacts.plan import Plan
from pruning.artifacts.shapes import KINDS
from pruning.checkpoint.parts import Parts
from pruning.checkpoint.rewrite.biases import config_with_biases
from pruning.models.compact.config_key import plain_config
from pruning.models.compact.layout import HEADS
from pruning.models.compact.load import skeleton
from pruning.models.execution.offload import resident, value_of
from pruning.surgery.cut import expand
from pruning.utils.errors import Unsupported

TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.3}
"""Largest accepted difference of logits, relative: only the order of sums differs."""


@torch.no_grad()
def padded_model(parts: Parts) -> tuple[nn.Module, tuple[str, ...]]:
    """The model in its original shapes (on the CPU), and remarks.

    Raises Unsupported when the original shapes cannot hold it.
    """
    pruned, adapter = parts.model, parts.adapter
    config, remarks = config_with_biases(plain_config(pruned.config), parts)
    dense = skeleton(config, torch.float32)  # computed buffers as exact as from_pretrained's
    filled: set[nn.Module] = set()
    sides = (adapter.blocks(dense), adapter.blocks(pruned))
    for index, (block, kept) in enumerate(zip(*sides, strict=True)):
        with resident(kept):
            filled |= _fill_block(adapter, block, kept, parts.records.plan, index)
    copy_remaining(dense, pruned, adapter, filled)
    check_equivalent(dense, pruned, adapter)
    return dense, remarks


def _fill_block(
    adapter: ModelAdapter, block: nn.Module, kept: nn.Module, plan: Plan, index: int
) -> set[nn.Module]:
    """Give both modules of ``block`` the weights of ``kept``; returns the layers filled."""
    filled: set[nn.Module] = set()
    for kind in KINDS:
        wide, narrow = adapter.module(block, kind), adapter.module(kept, kind)
        units, groups = _places(wide, narrow, plan, index)
        if kind == "attention":
            units, groups = _numbered_heads(kept, narrow) or (units, groups)
        _fill(wide, narrow, units, groups)
        if kind == "attention":
            filled |= _fill_lists(block, kept, units, groups)
        filled |= {layer_owner(p) for p in (*wide.in_proj_layers(), wide.out_proj)}
    return filled


def _places(
    wide: PrunableModule, narrow: PrunableModule, plan: Plan, index: int
) -> tuple[Sequence[int], Sequence[int]]:
    """Original units and groups of what was kept. For a model that was pruned more than once: the
    first places that fit (which one a unit takes makes no difference to the result)."""
    made_from = plan.shape.blocks[index].module(wide.kind)
    if (made_from.units, made_from.groups) == (wide.units, wide.groups):
        decision = plan.blocks[index].module(wide.kind)
        kept, groups = decision.kept, decision.kept_groups
        if (len(kept), len(groups)) == (narrow.units, narrow.groups):
            for head, group in enumerate(groups):
                if not _are_copies(narrow, groups.index(group), head):
                    raise _no_copies(index)
            return kept, groups
    if wide.kind == "ffn":
        room, used = wide.units // wide.experts, narrow.units // narrow.experts
        return [e * room + channel for e in range(wide.experts) for channel in range(used)], ()
    if narrow.groups > wide.groups:
        return _regrouped(wide, narrow, index)
    room, used = wide.units // wide.groups, narrow.units // narrow.groups
    heads = [g * room + member for g in range(narrow.groups) for member in range(used)]
    return heads, range(narrow.groups)


def _regrouped(
    wide: PrunableModule, narrow: PrunableModule, index: int
) -> tuple[list[int], list[int]]:
    """Places in the original groups for an ungrouped block, whose key/value heads are copies."""
    room, used = wide.units // wide.groups, narrow.units // narrow.groups
    first: list[int] = []  # of every group filled so far
    taken: list[int] = []
    heads, groups = [], []
    for head in range(narrow.groups):
        fits = (
            group
            for group, like in enumerate(first)
            if taken[group] + used <= room and _are_copies(narrow, like, head)
        )
        group = next(fits, len(first))
        if group == len(first):
            first.append(head)
            taken.append(0)
        heads += range(group * room + taken[group], group * room + taken[group] + used)
        groups.append(group)
        taken[group] += used
    if len(first) > wide.groups:
        raise _no_copies(index)
    return heads, groups


def _are_copies(module: PrunableModule, one: int, other: int) -> bool:
    """Whether two key/value heads have equal weights and biases."""
    rows = [expand([head], module.unit_width) for head in (one, other)]
    for name in GROUPED:
        weight, bias = module.in_proj[name].weight(), module.in_proj[name].bias()
        for tensor in (weight,) if bias is None else (weight, bias):
            if not torch.equal(*(tensor[places] for places in rows)):
                return False
    return True


def _no_copies(index: int) -> Unsupported:
    return Unsupported(
        f"Block {index} was ungrouped and its key/value heads are no longer copies of each other, "
        "so the original shape, where heads share them, cannot hold it; use the compact form."
    )


def _numbered_heads(
    block: nn.Module, narrow: PrunableModule
) -> tuple[list[int], Sequence[int]] | None:
    """Original places of heads that carry their number (ALiBi), however often pruned."""
    for module in block.modules():
        if HEADS in module._buffers:
            numbers = module.get_buffer(HEADS).tolist()
            shared = narrow.groups < narrow.units
            return numbers, range(narrow.groups) if shared else numbers
    return None


def _fill(
    wide: PrunableModule, narrow: PrunableModule, units: Sequence[int], groups: Sequence[int]
) -> None:
    """Give ``wide`` zeros, and ``narrow``'s weights at the given places."""
    width = wide.unit_width
    for layer in wide.in_proj_layers():
        weight, bias = _zeros(layer, narrow)
        for name, projection in wide.in_proj.items():
            if projection.layer is not layer:
                continue
            kept = groups if name in GROUPED else units
            rows = projection.rows.cpu()[expand(kept, width)]
            weight[rows] = narrow.in_proj[name].weight().cpu()
            given = narrow.in_proj[name].bias()
            if given is not None and bias is not None:
                bias[rows] = given.cpu()
        set_layer(layer, weight, bias)
    weight, bias = _zeros(wide.out_proj, narrow)
    weight[:, expand(units, width)] = layer_matrix(narrow.out_proj).cpu()
    if narrow.out_proj.bias is not None:
        assert bias is not None  # config_with_biases made the place
        bias.copy_(narrow.out_proj.bias)
    set_layer(wide.out_proj, weight, bias)


def _fill_lists(
    wide: nn.Module, narrow: nn.Module, units: Sequence[int], groups: Sequence[int]
) -> set[nn.Module]:
    """Put the parts that every head has of its own (norms) at their places; returns the modules
    filled."""
    filled: set[nn.Module] = set()
    for path, owned in narrow.named_modules():
        places = wide.get_submodule(path)
        if not isinstance(owned, nn.ModuleList) or len(owned) == len(places):
            continue
        kept = units if len(owned) == len(units) else groups
        given = dict(zip(kept, owned, strict=True))
        for place, module in enumerate(places):
            state = given.get(place, owned[0]).state_dict()
            if place not in given:
                state = {name: torch.zeros_like(value) for name, value in state.items()}
            state = {name: value.cpu() for name, value in state.items()}
            module.load_state_dict(state, assign=True)
            filled |= set(module.modules())
    return filled


def _zeros(layer: nn.Module, narrow: PrunableModule) -> tuple[Tensor, Tensor | None]:
    dtype = layer_like(narrow.out_proj).dtype
    weight = torch.zeros(layer_shape(layer), dtype=dtype)
    return weight, None if layer.bias is None else torch.zeros(layer.bias.shape, dtype=dtype)


def copy_remaining(
    model: nn.Module, pruned: nn.Module, adapter: ModelAdapter, filled: Collection[nn.Module] = ()
) -> None:
    """Give every module except the ``filled`` ones the weights it has in ``pruned``; a bias
    that ``pruned`` does not have is zero.

    Raises Unsupported when a weight outside the prunable modules has another shape.
    """
    blocks = adapter.blocks(pruned)
    given: dict[str, Any] = dict(pruned.named_parameters(remove_duplicate=False))
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None or module in filled:
                continue
            full = f"{path}.{name}".lstrip(".")
            if full in given and given[full].shape == parameter.shape:
                data = value_of(blocks, given[full])
            elif full not in given and name == "bias":
                data = torch.zeros(parameter.shape, dtype=pruned.dtype)
            else:
                raise Unsupported(
                    f"The weight {full} has no counterpart in the original shape; use the "
                    "compact form."
                )
            setattr(module, name, nn.Parameter(data, requires_grad=False))
    model.tie_weights()
    model.config.dtype = pruned.dtype
    model.eval()
    model.generation_config = pruned.generation_config


def check_equivalent(model: nn.Module, pruned: nn.Module, adapter: ModelAdapter) -> None:
    """Raise Unsupported when ``model`` does not compute what ``pruned`` does.

    Catches what shapes cannot tell, such as a norm over all heads.
    """
    gap = difference(pruned, adapter.prepared(model), adapter.model_shape(model).vocab_size)
    if not gap <= TOLERANCE[model.dtype]:
        raise Unsupported(
            f"In this form the model would compute something else (logits differ by {gap:.1g} "
            "of their largest); use the compact form."
        )


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, vocabulary: int) -> float:
    """Largest difference of the logits on a few tokens, relative to their largest value."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, 8), generator=generator)
    first, second = (
        model(input_ids=ids.to(model.device), use_cache=False).logits.float().cpu()
        for model in (one, other)
    )
    return ((first - second).abs().max() / first.abs().max().clamp_min(1e-9)).item()
