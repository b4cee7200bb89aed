"""Llama-type models: grouped queries, rotary positions, gated FFN, norms before each module."""

from pruning.adapters.base import FAMILIES, ModelAdapter, PrunableModule


class LlamaAdapter(ModelAdapter):
    """``q, k, v, o`` and ``gate, up, down`` as separate linear layers."""

    model_types = ("llama",)

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


class MistralAdapter(LlamaAdapter):
    """As Llama, with a sliding window that the model's own mask carries; heads may be wider than
    hidden size / heads."""

    model_types = ("mistral",)


class Qwen2Adapter(LlamaAdapter):
    """As Llama; the projections themselves say that they have biases."""

    model_types = ("qwen2",)


class Qwen3Adapter(LlamaAdapter):
    """As Llama; one norm of head width serves all heads, so no head depends on another."""

    model_types = ("qwen3",)


FAMILIES.add(
    "llama",
    LlamaAdapter(),
    title="Llama type",
    summary="Llama 1-3, Vicuna, TinyLlama, SmolLM2: grouped queries and a gated FFN.",
    source="transformers LlamaForCausalLM",
    place=10,
)
FAMILIES.add(
    "mistral",
    MistralAdapter(),
    title="Mistral",
    summary="Mistral 7B and its kin: grouped queries, gated FFN, sliding window.",
    source="transformers MistralForCausalLM",
    place=20,
)
FAMILIES.add(
    "qwen2",
    Qwen2Adapter(),
    title="Qwen2, Qwen2.5",
    summary="Qwen2 and Qwen2.5 of every size: grouped queries, biases on query, key and value.",
    source="transformers Qwen2ForCausalLM",
    place=30,
)
FAMILIES.add(
    "qwen3",
    Qwen3Adapter(),
    title="Qwen3",
    summary="Dense Qwen3 models: grouped queries, queries and keys normalised per head.",
    source="transformers Qwen3ForCausalLM",
    place=40,
)
