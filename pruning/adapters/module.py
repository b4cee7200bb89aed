"""The prunable modules of a block, as every family describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from pruning.adapters.experts import IN_PROJ, OUT_PROJ, STEP, ExpertLayer, Mixture
from pruning.adapters.projection import Projection, layer_shape, row_numbers
from pruning.artifacts.shapes import ModuleKind, ModuleShape

GROUPED = frozenset({"key", "value"})
"""Input projections whose rows belong to key/value heads instead of query heads."""


@dataclass(frozen=True)
class PrunableModule:
    """A depth-2 module of one live block: its input projections by name, and its output
    projection.

    Rows of a projection belong to units (or groups, see GROUPED) in order, ``unit_width`` each.
    ``unit_parameters`` and ``group_parameters`` lie outside the two layers and go with a unit or
    group (a norm per head). ``normed``: a norm stands between the output projection and the
    residual stream, so the contribution is not linear in it. Recovery then aims at the dense
    module's output *before* the norm, and cannot make up for what the stream has lost.
    ``mixture``: the module is a mixture of experts, whose units are the channels of one expert
    after the other.
    """

    kind: ModuleKind
    in_proj: Mapping[str, Projection]
    out_proj: nn.Module | ExpertLayer
    units: int
    groups: int
    unit_width: int
    unit_parameters: int = 0
    group_parameters: int = 0
    normed: bool = False
    mixture: Mixture | None = None

    @classmethod
    def of_heads(
        cls,
        query: nn.Module,
        key: nn.Module,
        value: nn.Module,
        out_proj: nn.Module,
        width: int,
        normed: bool = False,
    ) -> PrunableModule:
        """Attention whose projections are layers of their own, with heads of ``width`` channels."""
        layers = {"query": query, "key": key, "value": value}
        return cls(
            kind="attention",
            in_proj={name: Projection.whole(layer) for name, layer in layers.items()},
            out_proj=out_proj,
            units=layer_shape(query)[0] // width,
            groups=layer_shape(key)[0] // width,
            unit_width=width,
            normed=normed,
        )

    @classmethod
    def of_fused_heads(
        cls,
        fused: nn.Module,
        out_proj: nn.Module,
        width: int,
        *,
        by_group: bool = True,
        normed: bool = False,
    ) -> PrunableModule:
        """Attention whose query, key and value share the layer ``fused``: ``by_group`` the query
        heads of each key/value head and then that, else all queries, all keys, all values."""
        units = layer_shape(out_proj)[1] // width
        groups = (layer_shape(fused)[0] // width - units) // 2
        if by_group:
            in_proj = Projection.by_group(fused, groups, units // groups, width)
        else:
            sizes = {"query": units * width, "key": groups * width, "value": groups * width}
            in_proj = Projection.in_turn(fused, sizes)
        return cls("attention", in_proj, out_proj, units, groups, width, normed=normed)

    @classmethod
    def of_ffn(
        cls, up: nn.Module, out_proj: nn.Module, gate: nn.Module | None = None, normed: bool = False
    ) -> PrunableModule:
        """A feed-forward network of two layers, or three with a ``gate``."""
        layers = {"up": up} if gate is None else {"up": up, "gate": gate}
        return cls(
            kind="ffn",
            in_proj={name: Projection.whole(layer) for name, layer in layers.items()},
            out_proj=out_proj,
            units=layer_shape(up)[0],
            groups=0,
            unit_width=1,
            normed=normed,
        )

    @classmethod
    def of_experts(cls, experts: nn.Module, active: int) -> PrunableModule:
        """The gated experts of a block, of which ``active`` work on each token."""
        count, _, width = getattr(experts, OUT_PROJ).shape
        fused = ExpertLayer(experts, IN_PROJ)
        rows = row_numbers(fused, count * 2 * width).reshape(count, 2, width)
        return cls(
            kind="ffn",
            in_proj={
                "up": Projection(fused, rows[:, 1].reshape(-1)),
                "gate": Projection(fused, rows[:, 0].reshape(-1)),
            },
            out_proj=ExpertLayer(experts, OUT_PROJ),
            units=count * width,
            groups=0,
            unit_width=1,
            mixture=Mixture(experts, active),
        )

    @property
    def step(self) -> int:
        """What the number of channels of an expert must stay a multiple of."""
        return STEP if self.mixture and self.units // self.experts % STEP == 0 else 1

    @property
    def experts(self) -> int:
        """How many experts share the units; 1 for a module that is no mixture."""
        return self.mixture.experts if self.mixture else 1

    def in_proj_layers(self) -> list[nn.Module | ExpertLayer]:
        """The layers behind the projections, each once (fused projections share one)."""
        return list({id(p.layer): p.layer for p in self.in_proj.values()}.values())

    def shape(self) -> ModuleShape:
        """Sizes and prices of this module."""
        width = self.unit_width
        weights = {True: 0, False: 0}
        biases = {True: 0, False: 0}
        for name, projection in self.in_proj.items():
            grouped = name in GROUPED
            weights[grouped] += width * layer_shape(projection.layer)[1]
            biases[grouped] += width * (projection.layer.bias is not None)
        out_features = layer_shape(self.out_proj)[0]
        return ModuleShape(
            kind=self.kind,
            units=self.units,
            groups=self.groups,
            unit_width=width,
            unit_weights=weights[False] + width * out_features,
            unit_biases=biases[False] + self.unit_parameters,
            group_weights=weights[True],
            group_biases=biases[True] + self.group_parameters,
            fixed_biases=out_features if self.out_proj.bias is not None else 0,
            experts=self.experts,
            active=self.mixture.active if self.mixture else 1,
            step=self.step,
        )
