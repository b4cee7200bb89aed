"""The tensors of two live blocks, pair by pair, with rows and columns where they belong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pruning.adapters.base import GROUPED, ModelAdapter, PrunableModule
from pruning.adapters.experts import ExpertLayer
from pruning.adapters.projection import layer_like, layer_matrix, layer_shape
from pruning.artifacts.difference import Part, TensorDifference
from pruning.artifacts.shapes import KINDS, ModuleKind
from pruning.difference.matching import Matching, Places, Side, common
from pruning.surgery.cut import expand
from pruning.utils.errors import HeadroomError

_CHUNK = 1 << 22
"""Elements that are compared at a time."""

Parameters = Mapping[str, Tensor]
Layer = nn.Module | ExpertLayer


@dataclass(frozen=True)
class LiveBlock:
    """A block on its device. ``prefix`` is its path in the model, with a dot at its end."""

    adapter: ModelAdapter
    block: nn.Module
    prefix: str = ""

    def module(self, kind: ModuleKind) -> PrunableModule:
        return self.adapter.module(self.block, kind)

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.block.named_parameters())


@torch.no_grad()
def block_differences(
    first: LiveBlock, second: LiveBlock, index: int, matching: Matching | None
) -> list[TensorDifference]:
    """Every tensor of block ``index`` of two models; without a ``matching`` those of one shape are
    compared as they are."""
    found: list[TensorDifference] = []
    seen: set[str] = set()
    for kind in KINDS:
        modules = first.module(kind), second.module(kind)
        if matching is None:
            named = _of_module(modules[0], first) | _of_module(modules[1], second)
            pairs = whole_differences(*_only(first, second, named), index, kind)
        else:
            shapes = modules[0].shape(), modules[1].shape()
            sides = matching.sides(shapes, index, kind)
            pairs = [*_module_differences((first, second), modules, sides, index, kind)]
            if kind == "attention":
                lists, owned = _list_differences((first, second), modules, sides, index)
                pairs += lists
                seen |= owned
        seen |= {difference.name for difference in pairs}
        found += pairs
    rest = {*first.parameters(), *second.parameters()} - seen
    found += whole_differences(*_only(first, second, rest), index, "other")
    return [replace(difference, name=first.prefix + difference.name) for difference in found]


def check_finite(found: Iterable[TensorDifference]) -> None:
    """Raise HeadroomError that names a tensor with numbers that are not finite."""
    for tensor in found:
        if not (math.isfinite(tensor.squared_error) and math.isfinite(tensor.squared_size)):
            raise HeadroomError(
                f"{tensor.name} holds numbers that are not finite in one of the two models; save "
                "or download that model again."
            )


def whole_differences(
    first: Parameters, second: Parameters, block: int | None, part: Part
) -> list[TensorDifference]:
    """Tensors of the same name, compared where they have one shape."""
    found = []
    for name in {**first, **second}:
        one, other = first.get(name), second.get(name)
        found.append(_measured(_described(name, block, part, one, other), one, other))
    return found


def _module_differences(
    blocks: tuple[LiveBlock, LiveBlock],
    modules: tuple[PrunableModule, PrunableModule],
    sides: tuple[Side, Side],
    index: int,
    kind: ModuleKind,
) -> Iterator[TensorDifference]:
    """The layers of one module: the rows of in_proj and the columns of out_proj that both have."""
    places = common(*sides)
    names = {id(tensor): name for block in blocks for name, tensor in block.parameters().items()}
    own = [side.own() for side in sides]
    for layers in zip(*(module.in_proj_layers() for module in modules), strict=True):
        rows = [_rows(*parts) for parts in zip(modules, layers, places, strict=True)]
        sizes = [
            len(_rows(module, layer, Places(*mine)))
            for module, layer, mine in zip(modules, layers, own, strict=True)
        ]
        yield from _layer_differences(names, layers, index, kind, rows=rows, sizes=sizes)
    width = modules[0].unit_width
    columns = [expand(place.units, width) for place in places]
    sizes = [len(units) * width for units, _ in own]
    layers = (modules[0].out_proj, modules[1].out_proj)
    yield from _layer_differences(names, layers, index, kind, columns=columns, sizes=sizes)


def _rows(module: PrunableModule, layer: Layer, places: Places) -> Tensor:
    """Rows of ``layer`` that belong to the units and groups at ``places``, on the CPU."""
    parts = [
        projection.rows.cpu()[
            expand(places.groups if name in GROUPED else places.units, module.unit_width)
        ]
        for name, projection in module.in_proj.items()
        if projection.layer is layer
    ]
    return torch.cat(parts)


def _layer_differences(
    names: Mapping[int, str],
    layers: tuple[Layer, Layer],
    index: int,
    kind: ModuleKind,
    *,
    rows: Sequence[Tensor] | None = None,
    columns: Sequence[Tensor] | None = None,
    sizes: Sequence[int],
) -> Iterator[TensorDifference]:
    """Weight and bias of one layer. ``sizes``: rows or columns that each side has of its own."""
    matrices = [layer_matrix(layer) for layer in layers]
    picked = [
        matrix[rows[place].to(matrix.device)]
        if rows is not None
        else matrix[:, columns[place].to(matrix.device)]
        for place, matrix in enumerate(matrices)
    ]
    stored = [layer_like(layer) for layer in layers]
    weight = _described(names[id(stored[0])], index, kind, *stored)
    other = [layer_shape(layer)[1 if rows is not None else 0] for layer in layers]
    elements = (sizes[0] * other[0], sizes[1] * other[1])
    yield _measured(replace(weight, elements=elements), *picked)
    biases = [layer.bias for layer in layers]
    if any(bias is not None for bias in biases):
        name = next(names[id(bias)] for bias in biases if bias is not None)
        bias = _described(name, index, kind, *biases)
        if None in biases or rows is None:
            yield _measured(bias, *biases)
            return
        short = [bias[rows[place].to(bias.device)] for place, bias in enumerate(biases)]
        yield _measured(replace(bias, elements=(sizes[0], sizes[1])), *short)


def _list_differences(
    blocks: tuple[LiveBlock, LiveBlock],
    modules: tuple[PrunableModule, PrunableModule],
    sides: tuple[Side, Side],
    index: int,
) -> tuple[list[TensorDifference], set[str]]:
    """What every head has of its own (norms), and the names of all such tensors."""
    places = common(*sides)
    found, owned = [], set()
    for path, ours in blocks[0].block.named_modules():
        if not isinstance(ours, nn.ModuleList):
            continue
        lists = ours, blocks[1].block.get_submodule(path)
        lengths = [len(one) for one in lists]
        by_unit = lengths == [module.units for module in modules]
        if not by_unit and lengths != [module.groups for module in modules]:
            continue
        here, there = ((place.units if by_unit else place.groups) for place in places)
        partner = dict(zip(here, there, strict=True))
        own = [set(side.own()[0 if by_unit else 1]) for side in sides]
        lone = sorted(own[1] - set(there))
        pairs = [(f"{path}.{one}", one, partner.get(one)) for one in sorted(own[0])]
        pairs += [(f"{path}.{other} of the second", None, other) for other in lone]
        for name, *numbers in pairs:
            parts = (
                {} if number is None else dict(side[number].named_parameters())
                for side, number in zip(lists, numbers, strict=True)
            )
            found += [
                replace(pair, name=f"{name}.{pair.name}")
                for pair in whole_differences(*parts, index, "attention")
            ]
        owned |= {f"{path}.{name}" for side in lists for name, _ in side.named_parameters()}
    return found, owned


def _of_module(module: PrunableModule, block: LiveBlock) -> set[str]:
    """Names of the tensors of a module's layers."""
    layers = (*module.in_proj_layers(), module.out_proj)
    mine = {id(layer_like(layer)) for layer in layers}
    mine |= {id(layer.bias) for layer in layers if layer.bias is not None}
    return {name for name, tensor in block.parameters().items() if id(tensor) in mine}


def _only(first: LiveBlock, second: LiveBlock, names: set[str]) -> tuple[Parameters, Parameters]:
    return tuple(
        {name: tensor for name, tensor in side.parameters().items() if name in names}
        for side in (first, second)
    )


def _described(
    name: str, block: int | None, part: Part, one: Tensor | None, other: Tensor | None
) -> TensorDifference:
    shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (one, other)]
    sizes = [0 if tensor is None else tensor.numel() for tensor in (one, other)]
    return TensorDifference(name, block, part, shapes[0], shapes[1], (sizes[0], sizes[1]))


def _measured(
    difference: TensorDifference, one: Tensor | None, other: Tensor | None
) -> TensorDifference:
    """``difference`` with what ``one`` and ``other`` differ in, where they have one shape."""
    if one is None or other is None or one.shape != other.shape:
        return difference
    error, size = squared_sums(one, other)
    return replace(difference, compared=one.numel(), squared_error=error, squared_size=size)


def squared_sums(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Sums of (other - one)² and of one² over tensors of one shape on any devices."""
    error = size = 0.0
    pairs = zip(one.reshape(-1).split(_CHUNK), other.reshape(-1).split(_CHUNK), strict=True)
    for a, b in pairs:
        a, b = a.float(), b.to(a.device).float()
        error += (b - a).square().sum().item()
        size += a.square().sum().item()
    return error, size
