"""One logical linear map inside a layer, whatever the layer's storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pruning.adapters.experts import ExpertLayer


@dataclass(frozen=True)
class Projection:
    """Output channels ``rows`` [out] of ``layer`` (an ``nn.Linear``, a transposed Conv1D, or the
    same layer of all experts), on its device unless that is ``meta``."""

    layer: nn.Module | ExpertLayer
    rows: Tensor

    @classmethod
    def whole(cls, layer: nn.Module) -> Projection:
        return cls(layer, row_numbers(layer, layer_shape(layer)[0]))

    @classmethod
    def in_turn(cls, layer: nn.Module, sizes: Mapping[str, int]) -> dict[str, Projection]:
        """Projections fused one after the other: name -> number of rows, in order."""
        rows = row_numbers(layer, sum(sizes.values())).split(list(sizes.values()))
        return {name: cls(layer, part) for name, part in zip(sizes, rows, strict=True)}

    @classmethod
    def by_group(
        cls, layer: nn.Module, groups: int, per_group: int, width: int
    ) -> dict[str, Projection]:
        """Query, key and value fused group by group: ``per_group`` query heads, then the key and
        the value head that they share, ``width`` rows each."""
        heads = per_group + 2
        rows = row_numbers(layer, groups * heads * width).reshape(groups, heads, width)
        return {
            "query": cls(layer, rows[:, :-2].reshape(-1)),
            "key": cls(layer, rows[:, -2].reshape(-1)),
            "value": cls(layer, rows[:, -1].reshape(-1)),
        }

    def weight(self) -> Tensor:
        """Weight [out, in]; a view or copy, in the layer's dtype."""
        matrix = layer_matrix(self.layer)
        if len(self.rows) == matrix.shape[0]:
            return matrix
        return matrix[self.rows.to(matrix.device)]

    def bias(self) -> Tensor | None:
        """Bias [out] or None."""
        bias = self.layer.bias
        return None if bias is None else bias[self.rows.to(bias.device)]


def row_numbers(layer: nn.Module | ExpertLayer, count: int) -> Tensor:
    """The numbers of the first ``count`` rows, where they pick without a copy."""
    device = layer_like(layer).device
    return torch.arange(count, device="cpu" if device.type == "meta" else device)


def layer_matrix(layer: nn.Module | ExpertLayer) -> Tensor:
    """The weight of a layer as [out, in]."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight


def layer_shape(layer: nn.Module | ExpertLayer) -> tuple[int, int]:
    """``(out, in)`` of a layer."""
    return layer.shape if isinstance(layer, ExpertLayer) else tuple(layer_matrix(layer).shape)


def layer_owner(layer: nn.Module | ExpertLayer) -> nn.Module:
    """The module whose parameters hold a layer."""
    return layer.owner if isinstance(layer, ExpertLayer) else layer


def layer_like(layer: nn.Module | ExpertLayer) -> Tensor:
    """A tensor that tells the dtype and device of a layer."""
    return layer.stored if isinstance(layer, ExpertLayer) else layer.weight


def set_layer(layer: nn.Module | ExpertLayer, weight: Tensor, bias: Tensor | None) -> None:
    """Give ``layer`` the weight [out, in] and bias [out], and the sizes that follow."""
    if isinstance(layer, ExpertLayer):
        assert bias is None  # experts have no place for one
        layer.set(weight)
        return
    stored = weight.T if isinstance(layer, Conv1D) else weight
    layer.weight = nn.Parameter(stored.contiguous(), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias.contiguous(), requires_grad=False)
    if isinstance(layer, Conv1D):
        layer.nf, layer.nx = weight.shape[0], weight.shape[1]
    else:
        layer.out_features, layer.in_features = weight.shape[0], weight.shape[1]
