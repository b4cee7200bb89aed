"""Qwen3: the Llama layout with a norm on every query and key head."""

from __future__ import annotations

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.llama import LlamaAdapter


class Qwen3Adapter(LlamaAdapter):
    """As Llama; one norm of head width serves all heads, so no head depends on another."""

    model_types = ("qwen3",)


FAMILIES.add(
    "qwen3",
    Qwen3Adapter(),
    title="Qwen3",
    summary="Dense Qwen3 models: grouped queries, queries and keys normalised per head.",
    source="transformers Qwen3ForCausalLM",
    place=40,
)
