"""GPT-NeoX and Pythia: query, key and value interleaved per head, parallel or sequential."""

from pruning.adapters.base import FAMILIES, ModelAdapter, PrunableModule


class GPTNeoXAdapter(ModelAdapter):
    """``query_key_value`` holds q, k, v of head 0, then of head 1, and so on."""

    model_types = ("gpt_neox",)

    def parallel(self, block):
        return block.use_parallel_residual

    def attention(self, block):
        layer = block.attention
        return PrunableModule.of_fused_heads(layer.query_key_value, layer.dense, layer.head_size)

    def ffn(self, block):
        layer = block.mlp
        return PrunableModule.of_ffn(layer.dense_h_to_4h, layer.dense_4h_to_h)

    def run_attention(self, block, hidden, context):
        return block.attention(block.input_layernorm(hidden), **context)

    def run_ffn(self, block, hidden):
        return block.mlp(block.post_attention_layernorm(hidden))

    def set_widths(self, block, heads, groups):
        """Nothing to do: the attention reads its heads off the layers."""


FAMILIES.add(
    "gpt_neox",
    GPTNeoXAdapter(),
    title="GPT-NeoX, Pythia",
    summary="GPT-NeoX 20B and Pythia: fused attention per head, plain FFN, parallel residual.",
    source="transformers GPTNeoXForCausalLM",
    place=170,
)
