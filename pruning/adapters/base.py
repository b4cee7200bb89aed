"""What the engine must know of a family of models.

Add a family in ten lines: a file in ``families/`` that describes its block and registers itself.
A family of Llama's layout says only where it differs, here StarCoder2 with its plain FFN::

    class Starcoder2Adapter(LlamaAdapter):
        model_types = ("starcoder2",)  # config.model_type of transformers

        def ffn(self, block):
            return PrunableModule.of_ffn(block.mlp.c_fc, block.mlp.c_proj)

    FAMILIES.add("starcoder2", Starcoder2Adapter(), title="StarCoder2", summary="...", source="...")

Any other family answers the abstract methods of :class:`ModelAdapter`: where the blocks are
(``backbone``, ``blocks``), which layers make up the two modules of a block (``attention``,
``ffn``), how a module runs inside its block, norm included (``run_attention``, ``run_ffn``), and
which attributes hold its head counts (``set_widths``). Then say what cannot be cut (``fixed``,
``whole``, ``ungroups``, ``check_config``) and add a tiny model of it to
``tests/helpers/families.py``: the conformance tests compare every number with a model whose units
are masked instead of cut.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pruning import registries
from pruning.adapters.experts import IN_PROJ, LEVEL2, STEP, ExpertLayer, Mixture
from pruning.adapters.projection import Projection, layer_shape, row_numbers
from pruning.artifacts.shapes import BlockShape, ModelShape, ModuleKind, ModuleShape
from pruning.utils.errors import Unsupported
from pruning.utils.precision import autocast_in
from pruning.utils.registry import Registry

GROUPED = frozenset({"key", "value"})
"""Input projections whose rows belong to key/value heads instead of query heads."""


@dataclass(frozen=True)
class PrunableModule:
    """A depth-2 module of one live block: its input projections by name, and its
    output projection.

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
        count, _, width = getattr(experts, LEVEL2).shape
        fused = ExpertLayer(experts, IN_PROJ)
        rows = row_numbers(fused, count * 2 * width).reshape(count, 2, width)
        return cls(
            kind="ffn",
            in_proj={
                "up": Projection(fused, rows[:, 1].reshape(-1)),
                "gate": Projection(fused, rows[:, 0].reshape(-1)),
            },
            out_proj=ExpertLayer(experts, LEVEL2),
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


class ModelAdapter(ABC):
    """Describes one family: where its blocks are, their two modules, how a block runs."""

    model_types: tuple[str, ...]
    fixed: Mapping[ModuleKind, str] = MappingProxyType({})
    """Modules that cannot lose units in this family: kind -> a sentence that says why."""
    whole: str = ""
    """What else of a block with experts cannot lose units, as a sentence."""
    ungroups: bool = True
    """Whether grouped queries can be rewritten so that each has its own key/value head."""
    kernel: str | None = None
    """Attention implementation that this family needs; None: the one transformers takes."""
    autocast_dtype: torch.dtype | None = None
    """Number format in which :meth:`run` multiplies; None: the weights' own."""

    def prepared(self, model: nn.Module) -> nn.Module:
        """``model``, which attends as this family needs."""
        if self.kernel is not None:
            model.config._attn_implementation = self.kernel
        return model

    def with_autocast(self, dtype: torch.dtype | None) -> ModelAdapter:
        """The same adapter with another ``autocast_dtype``."""
        found = copy(self)
        found.autocast_dtype = dtype
        return found

    @abstractmethod
    def backbone(self, model: nn.Module) -> nn.Module:
        """The model without its output layer."""

    @abstractmethod
    def blocks(self, model: nn.Module) -> nn.ModuleList:
        """The Transformer blocks, in order."""

    @abstractmethod
    def attention(self, block: nn.Module) -> PrunableModule:
        """The attention module of a live block."""

    @abstractmethod
    def ffn(self, block: nn.Module) -> PrunableModule:
        """The FFN module of a live block."""

    def parallel(self, block: nn.Module) -> bool:
        """True when attention and FFN of a live block both read the block's input."""
        return False

    @abstractmethod
    def run_attention(
        self, block: nn.Module, hidden: Tensor, context: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """Contribution [n, s, d] of attention to the residual stream, and its probabilities
        [n, heads, s, s] when the model runs eager attention."""

    @abstractmethod
    def run_ffn(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """Contribution [n, s, d] of the FFN to the residual stream."""

    @abstractmethod
    def set_widths(self, block: nn.Module, heads: int, groups: int) -> None:
        """Update the attributes of an attention module that was cut to these head counts."""

    def keep_heads(  # noqa: B027  (most families have nothing else per head)
        self, block: nn.Module, heads: Sequence[int], groups: Sequence[int]
    ) -> None:
        """Before the cut: keep what else belongs to these live heads (norms, position slopes)."""

    def check_config(self, config: Any) -> None:  # noqa: B027  (most families have no such variant)
        """Raise Unsupported when a variant of the family cannot be pruned."""

    def module(self, block: nn.Module, kind: ModuleKind) -> PrunableModule:
        return self.attention(block) if kind == "attention" else self.ffn(block)

    def run(
        self, block: nn.Module, kind: ModuleKind, hidden: Tensor, context: Mapping[str, Any]
    ) -> Tensor:
        """Contribution [n, s, d] of one module to the residual stream."""
        with autocast_in(self.autocast_dtype, hidden.device):
            if kind == "attention":
                return self.run_attention(block, hidden, context)[0]
            return self.run_ffn(block, hidden)

    def other_weights(self, block: nn.Module) -> int:
        """Multiply-adds per token of a live block outside its two modules."""
        return 0

    def max_positions(self, config: Any) -> int:
        """Longest text in tokens."""
        return config.max_position_embeddings

    def outside_weights(self, model: nn.Module) -> int:
        """Multiply-adds per token outside the blocks."""
        return model.get_output_embeddings().weight.numel()

    def model_shape(self, model: nn.Module) -> ModelShape:
        """Sizes of the whole model; tied parameters count once."""
        blocks = tuple(self._block_shape(block) for block in self.blocks(model))
        in_blocks = sum(p.numel() for p in self.blocks(model).parameters())
        config = model.config
        return ModelShape(
            architecture=type(model).__name__,
            family=config.model_type,
            hidden_size=config.hidden_size,
            vocab_size=config.vocab_size,
            max_positions=self.max_positions(config),
            blocks=blocks,
            other_parameters=sum(p.numel() for p in model.parameters()) - in_blocks,
            head_weights=self.outside_weights(model),
            dtype=str(model.dtype).removeprefix("torch."),
        )

    def _block_shape(self, block: nn.Module) -> BlockShape:
        attention, ffn = self.attention(block).shape(), self.ffn(block).shape()
        inside = attention.parameters(attention.units, attention.groups)
        inside += ffn.parameters(ffn.units, 0)
        return BlockShape(
            replace(
                attention,
                fixed=self.fixed.get("attention", ""),
                ungroups=self.ungroups and attention.units_per_group > 1,
            ),
            replace(
                ffn, fixed=self.fixed.get("ffn", ""), whole=self.whole if ffn.experts > 1 else ""
            ),
            sum(p.numel() for p in block.parameters()) - inside,
            self.other_weights(block),
        )


FAMILIES: Registry[ModelAdapter] = registries.FAMILIES


def supported() -> list[str]:
    """``model_type`` names that can be pruned."""
    return sorted({kind for entry in FAMILIES for kind in entry.value.model_types})


def adapter_for(config: Any) -> ModelAdapter:
    """The adapter of a transformers config; raises Unsupported, naming what is supported."""
    for entry in FAMILIES:
        if config.model_type in entry.value.model_types:
            entry.value.check_config(config)
            return entry.value
    raise Unsupported(
        f"Models of type {config.model_type!r} cannot be pruned yet; supported types are: "
        f"{', '.join(supported())}."
    )
