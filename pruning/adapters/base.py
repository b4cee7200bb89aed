"""What the engine must know of a family of models.

Add a family in ten lines: a file in ``families/`` that describes its block and registers itself.
A family of Llama's layout says only where it differs, here StarCoder2 with its plain FFN::

    class Starcoder2Adapter(LlamaAdapter):
        model_types = ("starcoder2",)  # config.model_type of transformers

        def ffn(self, block):
            return PrunableModule.of_ffn(block.mlp.c_fc, block.mlp.c_proj)

    FAMILIES.add("starcoder2", Starcoder2Adapter(), title="StarCoder2", summary="...", source="...")

Any other family answers the abstract methods of :class:`ModelAdapter`: which layers make up the two
modules of a block (``attention``, ``ffn``), how a module runs inside its block, norm included
(``run_attention``, ``run_ffn``), and which attributes hold its head counts (``set_widths``). Then
say where the blocks are if not in ``layers`` (``block_list``, ``backbone``) and what cannot be cut
(``fixed``, ``whole``, ``ungroups``, ``check_config``), and add a tiny model of it to
``tests/helpers/families.py``: the conformance tests compare every number with a model whose units
are masked instead of cut.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pruning import registries
from pruning.adapters.module import GROUPED, PrunableModule
from pruning.artifacts.shapes import BlockShape, ModelShape, ModuleKind
from pruning.utils.errors import Unsupported
from pruning.utils.precision import autocast_in
from pruning.utils.registry import Registry

__all__ = ["FAMILIES", "GROUPED", "ModelAdapter", "PrunableModule", "adapter_for", "supported"]


class ModelAdapter(ABC):
    """Describes one family: where its blocks are, their two modules, how a block runs."""

    model_types: tuple[str, ...]
    block_list: str = "layers"
    """What the backbone calls its list of blocks."""
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
        adapter = copy(self)
        adapter.autocast_dtype = dtype
        return adapter

    def backbone(self, model: nn.Module) -> nn.Module:
        """The model without its output layer."""
        return model.base_model

    def blocks(self, model: nn.Module) -> nn.ModuleList:
        """The Transformer blocks, in order."""
        return getattr(self.backbone(model), self.block_list)

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
