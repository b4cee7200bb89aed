"""Qwen2 and Qwen2.5: the Llama layout with biases on query, key and value only."""

from __future__ import annotations

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.llama import LlamaAdapter


class Qwen2Adapter(LlamaAdapter):
    """As Llama; the projections themselves say that they have biases."""

    model_types = ("qwen2",)


FAMILIES.add(
    "qwen2",
    Qwen2Adapter(),
    title="Qwen2, Qwen2.5",
    summary="Qwen2 and Qwen2.5 of every size: grouped queries, biases on query, key and value.",
    source="transformers Qwen2ForCausalLM",
    place=30,
)
