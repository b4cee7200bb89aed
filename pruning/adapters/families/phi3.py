"""Phi-3, Phi-3.5 and Phi-4: query/key/value fused in one layer, gate and up in another."""

from __future__ import annotations

from typing import Any

from pruning.adapters.base import FAMILIES, PrunableModule
from pruning.adapters.families.llama import LlamaAdapter
from pruning.adapters.projection import Projection


class Phi3Adapter(LlamaAdapter):
    """``qkv_proj`` holds Q, K, V one after the other, ``gate_up_proj`` gate and up."""

    model_types = ("phi3",)

    def attention(self, block):
        layer = block.self_attn
        return PrunableModule.of_fused_heads(
            layer.qkv_proj, layer.o_proj, layer.head_dim, by_group=False
        )

    def ffn(self, block):
        layer = block.mlp
        channels = layer.down_proj.in_features
        in_proj = Projection.in_turn(layer.gate_up_proj, {"gate": channels, "up": channels})
        return PrunableModule("ffn", in_proj, layer.down_proj, channels, groups=0, unit_width=1)

    def set_widths(self, block, heads, groups):
        super().set_widths(block, heads, groups)
        attention = block.self_attn
        attention.num_key_value_heads = groups
        attention.config = OwnHeads.view(attention.config, heads)


class OwnHeads:
    """The model's config as one block sees it: its own number of heads, all else shared.

    Phi-3's attention splits ``qkv`` by ``config.num_attention_heads``, which all blocks share. A
    copy would miss later changes, such as another attention kernel.
    """

    def __init__(self, config: Any, heads: int) -> None:
        self._shared = config
        self.num_attention_heads = heads

    @classmethod
    def view(cls, config: Any, heads: int) -> OwnHeads:
        """A view of ``config``, or of the config that it is a view of."""
        return cls(config._shared if isinstance(config, cls) else config, heads)

    def __getattr__(self, name: str) -> Any:
        # copying looks for these before there is a config to ask
        if name == "_shared" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._shared, name)


FAMILIES.add(
    "phi3",
    Phi3Adapter(),
    title="Phi-3, Phi-3.5, Phi-4",
    summary="Phi-3 and later dense models: fused query/key/value, fused gate and up.",
    source="transformers Phi3ForCausalLM",
    place=140,
)
