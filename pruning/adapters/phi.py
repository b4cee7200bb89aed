"""Phi-1, Phi-1.5 and Phi-2: both modules read one norm of the block's input; biases everywhere."""

from __future__ import annotations

from pruning.adapters.base import ADAPTERS, DepthTwo
from pruning.adapters.llama import LlamaAdapter
from pruning.adapters.projection import Projection


class PhiAdapter(LlamaAdapter):
    """Attention as Llama's with ``dense`` as level 2, a plain FFN, parallel blocks."""

    model_types = ("phi",)

    def parallel(self, block):
        return True

    def attention(self, block):
        layer = block.self_attn
        return DepthTwo(
            kind="attention",
            level1={
                "query": Projection.whole(layer.q_proj),
                "key": Projection.whole(layer.k_proj),
                "value": Projection.whole(layer.v_proj),
            },
            level2=layer.dense,
            units=layer.q_proj.out_features // layer.head_dim,
            groups=layer.k_proj.out_features // layer.head_dim,
            unit_width=layer.head_dim,
        )

    def ffn(self, block):
        layer = block.mlp
        return DepthTwo(
            kind="ffn",
            level1={"up": Projection.whole(layer.fc1)},
            level2=layer.fc2,
            units=layer.fc1.out_features,
            groups=0,
            unit_width=1,
        )

    def run_ffn(self, block, hidden):
        return block.mlp(block.input_layernorm(hidden))


ADAPTERS.add(
    "phi",
    PhiAdapter(),
    title="Phi-1, Phi-1.5, Phi-2",
    summary="Phi up to Phi-2: parallel attention and FFN, biases everywhere, plain FFN.",
    source="transformers PhiForCausalLM",
)
