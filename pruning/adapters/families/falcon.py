"""Falcon: three layouts of the fused attention layer, rotary positions or ALiBi."""

import torch

from pruning.adapters.alibi import keep_slopes
from pruning.adapters.base import FAMILIES, ModelAdapter, PrunableModule


class FalconAdapter(ModelAdapter):
    """One description fits all layouts: per key/value head its query heads, then key and value.

    The new decoder architecture (40B, 180B, 11B) has several such groups, multi-query attention
    (7B) a single one, and Falcon-RW one per head.
    """

    model_types = ("falcon",)
    block_list = "h"
    ungroups = False  # the fused layer of q, k and v has a fixed layout

    def parallel(self, block):
        return block.config.new_decoder_architecture or block.config.parallel_attn

    def attention(self, block):
        layer = block.self_attention
        return PrunableModule.of_fused_heads(layer.query_key_value, layer.dense, layer.head_dim)

    def ffn(self, block):
        layer = block.mlp
        return PrunableModule.of_ffn(layer.dense_h_to_4h, layer.dense_4h_to_h)

    def run_attention(self, block, hidden, context):
        norm = block.ln_attn if hasattr(block, "ln_attn") else block.input_layernorm
        if context["alibi"] is not None:
            # the mask already contains ALiBi, and the eager path would add it a second time
            context = {**context, "alibi": torch.zeros_like(context["alibi"])}
            context["alibi"] = context["alibi"].repeat(len(hidden), 1, 1, 1)
        return block.self_attention(norm(hidden), **context)

    def run_ffn(self, block, hidden):
        if hasattr(block, "ln_mlp"):
            norm = block.ln_mlp
        else:
            parallel = self.parallel(block)
            norm = block.input_layernorm if parallel else block.post_attention_layernorm
        return block.mlp(norm(hidden))

    def keep_heads(self, block, heads, groups):
        if block.config.alibi:
            keep_slopes(block.self_attention, self.attention(block).units, heads, pick_alibi)

    def set_widths(self, block, heads, groups):
        block.self_attention.num_heads = heads
        block.self_attention.num_kv_heads = groups


def pick_alibi(attention, args, kwargs):
    """ALiBi [n, heads, 1, s] and the mask that contains it [n, heads, s, s], of the heads left."""
    picked = {name: kwargs[name][:, attention.kept_heads] for name in ("alibi", "attention_mask")}
    return args, {**kwargs, **picked}


FAMILIES.add(
    "falcon",
    FalconAdapter(),
    title="Falcon",
    summary="Falcon 7B, 11B, 40B, 180B and RW: multi-query or grouped, parallel or sequential.",
    source="transformers FalconForCausalLM",
    place=200,
)
