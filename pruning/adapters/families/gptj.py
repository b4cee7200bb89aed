"""GPT-J: both modules read one norm of the block's input; rotary positions, plain FFN."""

from pruning.adapters.base import FAMILIES, ModelAdapter, PrunableModule


class GPTJAdapter(ModelAdapter):
    """``q, k, v, out`` without biases, ``fc_in, fc_out`` with."""

    model_types = ("gptj",)
    block_list = "h"

    def parallel(self, block):
        return True

    def attention(self, block):
        layer = block.attn
        return PrunableModule.of_heads(
            layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj, layer.head_dim
        )

    def ffn(self, block):
        return PrunableModule.of_ffn(block.mlp.fc_in, block.mlp.fc_out)

    def run_attention(self, block, hidden, context):
        return block.attn(hidden_states=block.ln_1(hidden), **context)

    def run_ffn(self, block, hidden):
        return block.mlp(block.ln_1(hidden))

    def set_widths(self, block, heads, groups):
        block.attn.num_attention_heads = heads


FAMILIES.add(
    "gptj",
    GPTJAdapter(),
    title="GPT-J",
    summary="GPT-J 6B: parallel attention and FFN, rotary positions, plain FFN.",
    source="transformers GPTJForCausalLM",
    place=160,
)
