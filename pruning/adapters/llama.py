"""Llama-type models: grouped queries, rotary positions, gated FFN, norms before each module."""

from __future__ import annotations

from pruning.adapters.base import ADAPTERS, DepthTwo, ModelAdapter
from pruning.adapters.projection import Projection


class LlamaAdapter(ModelAdapter):
    """``q, k, v, o`` and ``gate, up, down`` as separate linear layers."""

    model_types = ("llama",)

    def backbone(self, model):
        return model.model

    def blocks(self, model):
        return model.model.layers

    def attention(self, block):
        layer = block.self_attn
        return DepthTwo(
            kind="attention",
            level1={
                "query": Projection.whole(layer.q_proj),
                "key": Projection.whole(layer.k_proj),
                "value": Projection.whole(layer.v_proj),
            },
            level2=layer.o_proj,
            units=layer.q_proj.out_features // layer.head_dim,
            groups=layer.k_proj.out_features // layer.head_dim,
            unit_width=layer.head_dim,
        )

    def ffn(self, block):
        layer = block.mlp
        return DepthTwo(
            kind="ffn",
            level1={
                "up": Projection.whole(layer.up_proj),
                "gate": Projection.whole(layer.gate_proj),
            },
            level2=layer.down_proj,
            units=layer.up_proj.out_features,
            groups=0,
            unit_width=1,
        )

    def run_attention(self, block, hidden, context):
        return block.self_attn(hidden_states=block.input_layernorm(hidden), **context)

    def run_ffn(self, block, hidden):
        return block.mlp(block.post_attention_layernorm(hidden))

    def set_widths(self, block, heads, groups):
        block.self_attn.num_key_value_groups = heads // groups


ADAPTERS.add(
    "llama",
    LlamaAdapter(),
    title="Llama type",
    summary="Llama 1-3, Vicuna, TinyLlama, SmolLM2: grouped queries and a gated FFN.",
    source="transformers LlamaForCausalLM",
)
