"""GPT-J: both modules read one norm of the block's input; rotary positions, plain FFN."""

from __future__ import annotations

from pruning.adapters.base import ADAPTERS, DepthTwo, ModelAdapter
from pruning.adapters.projection import Projection


class GPTJAdapter(ModelAdapter):
    """``q, k, v, out`` without biases, ``fc_in, fc_out`` with."""

    model_types = ("gptj",)

    def parallel(self, block):
        return True

    def backbone(self, model):
        return model.transformer

    def blocks(self, model):
        return model.transformer.h

    def attention(self, block):
        layer = block.attn
        heads = layer.q_proj.out_features // layer.head_dim
        return DepthTwo(
            kind="attention",
            level1={
                "query": Projection.whole(layer.q_proj),
                "key": Projection.whole(layer.k_proj),
                "value": Projection.whole(layer.v_proj),
            },
            level2=layer.out_proj,
            units=heads,
            groups=heads,
            unit_width=layer.head_dim,
        )

    def ffn(self, block):
        layer = block.mlp
        return DepthTwo(
            kind="ffn",
            level1={"up": Projection.whole(layer.fc_in)},
            level2=layer.fc_out,
            units=layer.fc_in.out_features,
            groups=0,
            unit_width=1,
        )

    def run_attention(self, block, hidden, context):
        return block.attn(hidden_states=block.ln_1(hidden), **context)

    def run_ffn(self, block, hidden):
        return block.mlp(block.ln_1(hidden))

    def set_widths(self, block, heads, groups):
        block.attn.num_attention_heads = heads


ADAPTERS.add(
    "gptj",
    GPTJAdapter(),
    title="GPT-J",
    summary="GPT-J 6B: parallel attention and FFN, rotary positions, plain FFN.",
    source="transformers GPTJForCausalLM",
)
