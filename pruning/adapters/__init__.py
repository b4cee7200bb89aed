"""Families of models. One file each describes the depth-2 modules of a block."""

from pruning.adapters.base import ADAPTERS, ModelAdapter, adapter_for, supported
from pruning.adapters import (  # noqa: F401  (they register)
    llama,
    mistral,
    qwen2,
    qwen3,
    gemma2,
    gemma3,
    olmo2,
    mixtral,
    qwen2_moe,
    qwen3_moe,
    olmoe,
    stablelm,
    phi,
    phi3,
    gpt2,
    gptj,
    gpt_neox,
    opt,
    bloom,
    falcon,
)

__all__ = ["ADAPTERS", "ModelAdapter", "adapter_for", "supported"]
