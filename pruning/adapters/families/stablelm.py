"""StableLM: the Llama layout, sequential or parallel, with norms per head in some models."""

from dataclasses import replace

from torch import nn

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.llama import LlamaAdapter


class StableLmAdapter(LlamaAdapter):
    """With ``qk_layernorm`` every head owns a norm, which goes with it."""

    model_types = ("stablelm",)
    ungroups = False  # a norm per head would have to be copied

    def parallel(self, block):
        return block.use_parallel_residual

    def attention(self, block):
        module = super().attention(block)
        if not block.self_attn.qk_layernorm:
            return module
        query, key = (layer.norms[0] for layer in self._head_norms(block))
        return replace(
            module,
            unit_parameters=sum(p.numel() for p in query.parameters()),
            group_parameters=sum(p.numel() for p in key.parameters()),
        )

    def _head_norms(self, block):
        return block.self_attn.q_layernorm, block.self_attn.k_layernorm

    def run_ffn(self, block, hidden):
        norm = block.input_layernorm if self.parallel(block) else block.post_attention_layernorm
        return block.mlp(norm(hidden))

    def keep_heads(self, block, heads, groups):
        if not block.self_attn.qk_layernorm:
            return
        for layer, kept in zip(self._head_norms(block), (heads, groups), strict=True):
            layer.norms = nn.ModuleList(layer.norms[place] for place in kept)
            layer.num_heads = len(kept)

    def set_widths(self, block, heads, groups):
        super().set_widths(block, heads, groups)
        block.self_attn.num_heads = heads
        block.self_attn.num_key_value_heads = groups


FAMILIES.add(
    "stablelm",
    StableLmAdapter(),
    title="StableLM",
    summary="StableLM 3B, 1.6B and 12B: partial rotary positions, gated FFN, layer norms.",
    source="transformers StableLmForCausalLM",
    place=120,
)
