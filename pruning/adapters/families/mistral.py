"""Mistral: the Llama layout, with a sliding window that the model's own mask carries."""

from __future__ import annotations

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.llama import LlamaAdapter


class MistralAdapter(LlamaAdapter):
    """As Llama; heads may be wider than hidden size / heads."""

    model_types = ("mistral",)


FAMILIES.add(
    "mistral",
    MistralAdapter(),
    title="Mistral",
    summary="Mistral 7B and its kin: grouped queries, gated FFN, sliding window.",
    source="transformers MistralForCausalLM",
    place=20,
)
