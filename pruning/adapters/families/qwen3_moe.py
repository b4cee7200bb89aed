"""Qwen3-MoE: Qwen3's attention and a mixture of experts in some or all blocks."""

from __future__ import annotations

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.mixtral import MixtralAdapter


class Qwen3MoeAdapter(MixtralAdapter):
    """As Mixtral; one norm of head width serves all heads, so no head depends on another."""

    model_types = ("qwen3_moe",)


FAMILIES.add(
    "qwen3_moe",
    Qwen3MoeAdapter(),
    title="Qwen3-MoE",
    summary="Qwen3 mixtures: heads, and channels of every expert.",
    source="transformers Qwen3MoeForCausalLM",
    place=100,
)
