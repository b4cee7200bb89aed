"""BLOOM: query, key and value interleaved per head, ALiBi instead of positions."""

import torch

from pruning.adapters.alibi import keep_slopes
from pruning.adapters.base import FAMILIES, ModelAdapter, PrunableModule
from pruning.utils.errors import Unsupported

TRAINED_LENGTH = 2048
"""What the BLOOM models were trained on; ALiBi itself has no limit."""


class BloomAdapter(ModelAdapter):
    """Modules take the residual and add it themselves; ALiBi comes as [samples·heads, 1, s]."""

    model_types = ("bloom",)
    block_list = "h"

    def check_config(self, config):
        if config.slow_but_exact and config.pretraining_tp > 1:
            raise Unsupported(
                "BLOOM with slow_but_exact splits its layers; set slow_but_exact to false in "
                "config.json."
            )

    def max_positions(self, config):
        return getattr(config, "seq_length", None) or TRAINED_LENGTH

    def attention(self, block):
        layer = block.self_attention
        normed = block.apply_residual_connection_post_layernorm
        return PrunableModule.of_fused_heads(
            layer.query_key_value, layer.dense, layer.head_dim, normed=normed
        )

    def ffn(self, block):
        layer = block.mlp
        normed = block.apply_residual_connection_post_layernorm
        return PrunableModule.of_ffn(layer.dense_h_to_4h, layer.dense_4h_to_h, normed=normed)

    def run_attention(self, block, hidden, context):
        normed = block.input_layernorm(hidden)
        # the context was recorded for a single sample
        context = {**context, "alibi": context["alibi"].repeat(len(hidden), 1, 1)}
        residual = self._residual(block, normed)
        leaving, probabilities = block.self_attention(normed, residual, **context)
        return self._added(block, hidden, leaving), probabilities

    def run_ffn(self, block, hidden):
        normed = block.post_attention_layernorm(hidden)
        leaving = block.mlp(normed, self._residual(block, normed))
        return self._added(block, hidden, leaving)

    def _residual(self, block, normed):
        """What a module adds its output to: in some variants the stream goes on from the norm."""
        if block.apply_residual_connection_post_layernorm:
            return normed
        return torch.zeros_like(normed)

    def _added(self, block, hidden, leaving):
        return leaving - hidden if block.apply_residual_connection_post_layernorm else leaving

    def keep_heads(self, block, heads, groups):
        keep_slopes(block.self_attention, self.attention(block).units, heads, pick_alibi)

    def set_widths(self, block, heads, groups):
        block.self_attention.num_heads = heads


def pick_alibi(attention, args, kwargs):
    """ALiBi [n·heads, 1, s] of the heads that are left."""
    alibi = kwargs["alibi"]
    samples = len(args[0])
    alibi = alibi.reshape(samples, -1, 1, alibi.shape[-1])[:, attention.kept_heads]
    return args, {**kwargs, "alibi": alibi.flatten(0, 1)}


FAMILIES.add(
    "bloom",
    BloomAdapter(),
    title="BLOOM",
    summary="BLOOM and BLOOMZ: ALiBi, fused attention per head, plain FFN.",
    source="transformers BloomForCausalLM",
    place=190,
)
