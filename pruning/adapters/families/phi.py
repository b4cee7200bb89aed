"""Phi-1, Phi-1.5 and Phi-2: both modules read one norm of the block's input; biases everywhere."""

from pruning.adapters.base import FAMILIES, PrunableModule
from pruning.adapters.families.llama import LlamaAdapter


class PhiAdapter(LlamaAdapter):
    """Attention as Llama's with ``dense`` as output projection, a plain FFN, parallel blocks."""

    model_types = ("phi",)

    def parallel(self, block):
        return True

    def attention(self, block):
        layer = block.self_attn
        return PrunableModule.of_heads(
            layer.q_proj, layer.k_proj, layer.v_proj, layer.dense, layer.head_dim
        )

    def ffn(self, block):
        return PrunableModule.of_ffn(block.mlp.fc1, block.mlp.fc2)

    def run_ffn(self, block, hidden):
        return block.mlp(block.input_layernorm(hidden))


FAMILIES.add(
    "phi",
    PhiAdapter(),
    title="Phi-1, Phi-1.5, Phi-2",
    summary="Phi up to Phi-2: parallel attention and FFN, biases everywhere, plain FFN.",
    source="transformers PhiForCausalLM",
    place=130,
)
