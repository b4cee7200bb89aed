"""GPT-2: transposed Conv1D layers, fused query/key/value, biases everywhere, plain FFN."""

from pruning.adapters.base import FAMILIES, ModelAdapter, PrunableModule
from pruning.utils.errors import Unsupported


class GPT2Adapter(ModelAdapter):
    """``c_attn`` holds Q, K, V side by side in its columns; ``c_proj`` is the output projection."""

    model_types = ("gpt2",)
    block_list = "h"

    def check_config(self, config):
        if config.add_cross_attention:
            raise Unsupported(
                "GPT-2 with cross-attention cannot be pruned; use a decoder-only one."
            )

    def attention(self, block):
        layer = block.attn
        return PrunableModule.of_fused_heads(
            layer.c_attn, layer.c_proj, layer.head_dim, by_group=False
        )

    def ffn(self, block):
        return PrunableModule.of_ffn(block.mlp.c_fc, block.mlp.c_proj)

    def run_attention(self, block, hidden, context):
        return block.attn(block.ln_1(hidden), **context)

    def run_ffn(self, block, hidden):
        return block.mlp(block.ln_2(hidden))

    def set_widths(self, block, heads, groups):
        block.attn.num_heads = heads
        block.attn.split_size = heads * block.attn.head_dim


FAMILIES.add(
    "gpt2",
    GPT2Adapter(),
    title="GPT-2",
    summary="GPT-2 of every size: fused attention weights and biases, plain FFN.",
    source="transformers GPT2LMHeadModel",
    place=150,
)
