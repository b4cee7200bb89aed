"""Real surgery: smaller weight matrices in place of the old ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from pruning.adapters.base import GROUPED, ModelAdapter, PrunableModule
from pruning.adapters.projection import layer_like, layer_matrix, set_layer

Model = TypeVar("Model", bound=nn.Module)


def shared_copy(model: Model) -> Model:
    """A second model that shares every parameter and buffer with ``model``.

    Cutting the copy replaces its parameters and leaves ``model`` untouched, so pruning never
    holds a second copy of what stays.
    """
    # deepcopy's memo: what stands under an object's id is taken for its copy
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo=shared)


def in_dtype(model: Model, dtype: str) -> Model:
    """``model``, or where its weights are in another ``dtype`` a second one in that; buffers, ties
    and ``model`` itself stay as they are."""
    wanted = getattr(torch, dtype)
    if all(parameter.dtype == wanted for parameter in model.parameters()):
        return model
    # the copy of a parameter that is shared is shared as well
    memo: dict[int, Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.data.to(wanted), requires_grad=False)
    return copy.deepcopy(model, memo=memo)


def expand(units: Sequence[int], width: int) -> Tensor:
    """Channel indices [len(units)·width] of the given units, in order."""
    starts = torch.as_tensor(units, dtype=torch.long).reshape(-1, 1) * width
    return (starts + torch.arange(width)).reshape(-1)


def cut_in_proj(module: PrunableModule, units: Sequence[int], groups: Sequence[int]) -> None:
    """Keep only the in_proj rows of ``units`` and (for key and value) ``groups``, which may name
    a group once per query head."""
    for layer in module.in_proj_layers():
        kept = [
            projection.rows.cpu()[expand(groups if name in GROUPED else units, module.unit_width)]
            for name, projection in module.in_proj.items()
            if projection.layer is layer
        ]
        rows = torch.cat(kept)
        # the order inside a fused layer stays what the family expects; rows that are repeated
        # (ungrouped key and value heads) are whole heads in order already
        if len(rows.unique()) == len(rows):
            rows = rows.sort().values
        rows = rows.to(layer_like(layer).device)
        bias = None if layer.bias is None else layer.bias.data[rows]
        set_layer(layer, layer_matrix(layer).data[rows], bias)


def cut(
    adapter: ModelAdapter,
    block: nn.Module,
    module: PrunableModule,
    units: Sequence[int],
    groups: Sequence[int],
    out_proj_weight: Tensor | None = None,
    out_proj_bias: Tensor | None = None,
) -> None:
    """Keep ``units`` and ``groups`` of one module.

    ``out_proj_weight`` [d, kept·unit_width] and ``out_proj_bias`` [d] replace the sliced out_proj
    parameters when recovery made new ones; they are cast to the layer's dtype.
    """
    out_proj = module.out_proj
    like = layer_like(out_proj)
    dtype = like.dtype
    if out_proj_weight is None:
        columns = expand(units, module.unit_width).to(like.device)
        out_proj_weight, out_proj_bias = layer_matrix(out_proj).data[:, columns], out_proj.bias
    if module.kind == "attention":
        adapter.keep_heads(block, units, groups)
    cut_in_proj(module, units, groups)
    set_layer(
        out_proj,
        out_proj_weight.data.to(dtype),
        None if out_proj_bias is None else out_proj_bias.data.to(dtype),
    )
    if module.kind == "attention":
        adapter.set_widths(block, len(units), len(groups))
