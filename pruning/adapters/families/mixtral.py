"""Mixtral: Mistral's attention and a mixture of experts in every block."""

from __future__ import annotations

from pruning.adapters.base import FAMILIES, PrunableModule
from pruning.adapters.families.llama import LlamaAdapter


class MixtralAdapter(LlamaAdapter):
    """``mlp`` is a router ``gate`` and fused ``experts``; shared by the other mixtures."""

    model_types = ("mixtral",)
    whole = (
        "The router stays whole. The experts of a block lose the same number of channels each "
        "and keep a multiple of 8, which their kernel needs; they have no place for a bias, so "
        "recovery adds none to them."
    )

    def ffn(self, block):
        if not hasattr(block.mlp, "experts"):  # a block without experts between those with
            return super().ffn(block)
        return PrunableModule.of_experts(block.mlp.experts, block.mlp.gate.top_k)

    def other_weights(self, block):
        return block.mlp.gate.weight.numel() if hasattr(block.mlp, "experts") else 0


FAMILIES.add(
    "mixtral",
    MixtralAdapter(),
    title="Mixtral",
    summary="Mixtral: grouped queries and a mixture of experts; channels of every expert.",
    source="transformers MixtralForCausalLM",
    place=80,
)
