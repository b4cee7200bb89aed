"""Llama-type models: grouped queries, rotary positions, gated FFN, norms before each module."""

from __future__ import annotations

from pruning.adapters.base import FAMILIES, ModelAdapter, PrunableModule


class LlamaAdapter(ModelAdapter):
    """``q, k, v, o`` and ``gate, up, down`` as separate linear layers."""

    model_types = ("llama",)

    def backbone(self, model):
        return model.model

    def blocks(self, model):
        return model.model.layers

    def attention(self, block):
        layer = block.self_attn
        return PrunableModule.of_heads(
            layer.q_proj, layer.k_proj, layer.v_proj, layer.o_proj, layer.head_dim
        )

    def ffn(self, block):
        layer = block.mlp
        return PrunableModule.of_ffn(layer.up_proj, layer.down_proj, layer.gate_proj)

    def run_attention(self, block, hidden, context):
        return block.self_attn(hidden_states=block.input_layernorm(hidden), **context)

    def run_ffn(self, block, hidden):
        return block.mlp(block.post_attention_layernorm(hidden))

    def set_widths(self, block, heads, groups):
        block.self_attn.num_key_value_groups = heads // groups


FAMILIES.add(
    "llama",
    LlamaAdapter(),
    title="Llama type",
    summary="Llama 1-3, Vicuna, TinyLlama, SmolLM2: grouped queries and a gated FFN.",
    source="transformers LlamaForCausalLM",
    place=10,
)
