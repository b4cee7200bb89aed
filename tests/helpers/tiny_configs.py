"""Small, odd settings for every family: few heads, head widths and FFN widths that no kernel
likes, grouped queries and windows where the family has them. Variants of one family differ in
what its adapter must tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VOCABULARY = 61
BLOCKS = 3
POSITIONS = 48

_COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
_NAMES = {
    **_COMMON,
    "num_hidden_layers": BLOCKS,
    "max_position_embeddings": POSITIONS,
    "tie_word_embeddings": False,
}
_GROUPED = {
    **_NAMES,
    "hidden_size": 36,
    "intermediate_size": 37,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
# the kernel for experts wants rows of whole 16 bytes, so these are no odd numbers
_EXPERTS = {**_GROUPED, "hidden_size": 48, "intermediate_size": 40, "num_experts_per_tok": 2}
_FIVE = {**_NAMES, "hidden_size": 40, "intermediate_size": 37, "num_attention_heads": 5}
_WINDOWS = {
    "sliding_window": 7,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_FALCON = {**_NAMES, "hidden_size": 40, "num_attention_heads": 5, "ffn_hidden_size": 37}
_OPT = {
    **_NAMES,
    "hidden_size": 30,
    "num_attention_heads": 5,
    "ffn_dim": 37,
    "dropout": 0.0,
    "tie_word_embeddings": True,
}

CONFIGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama1_long": (
        "llama",
        {**_FIVE, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "llama3": (
        "llama",
        {
            **_GROUPED,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 24,
            },
        },
    ),
    "mistral": ("mistral", {**_GROUPED, "head_dim": 10, "sliding_window": 7}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen3": ("qwen3", {**_GROUPED, "num_key_value_heads": 3, "head_dim": 10}),
    "gemma2": (
        "gemma2",
        {
            **_GROUPED,
            **_WINDOWS,
            "head_dim": 10,
            "query_pre_attn_scalar": 10,
            "tie_word_embeddings": True,
        },
    ),
    "gemma3": (
        "gemma3_text",
        {
            **_GROUPED,
            **_WINDOWS,
            "head_dim": 10,
            "query_pre_attn_scalar": 10,
            "tie_word_embeddings": True,
        },
    ),
    "olmo2": ("olmo2", {**_FIVE, "num_key_value_heads": 5}),
    "mixtral": (
        "mixtral",
        {**_EXPERTS, "head_dim": 10, "num_local_experts": 4, "sliding_window": 7},
    ),
    "qwen2_moe": (
        "qwen2_moe",
        {
            **_EXPERTS,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 23,
            "num_experts": 4,
        },
    ),
    "qwen2_moe_some_blocks": (
        "qwen2_moe",
        {
            **_EXPERTS,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 23,
            "num_experts": 4,
            "intermediate_size": 37,
            "mlp_only_layers": [1],
            "norm_topk_prob": True,
        },
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {
            **_EXPERTS,
            "num_key_value_heads": 3,
            "head_dim": 10,
            "moe_intermediate_size": 32,
            "num_experts": 5,
            "num_experts_per_tok": 3,
        },
    ),
    "olmoe": ("olmoe", {**_EXPERTS, "num_key_value_heads": 6, "num_experts": 4}),
    "stablelm": (
        "stablelm",
        {
            **_GROUPED,
            "hidden_size": 48,
            "use_qkv_bias": True,
            "qk_layernorm": True,
            "partial_rotary_factor": 0.5,
        },
    ),
    "stablelm_parallel": (
        "stablelm",
        {
            **_FIVE,
            "num_key_value_heads": 5,
            "use_parallel_residual": True,
            "partial_rotary_factor": 0.5,
        },
    ),
    "phi": ("phi", {**_FIVE, "partial_rotary_factor": 0.5, "qk_layernorm": True}),
    "phi3": ("phi3", {**_GROUPED, "sliding_window": 7}),
    "phi4_mini": (
        "phi3",
        {
            **_GROUPED,
            "hidden_size": 48,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": POSITIONS,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.1, 1.3],
                "long_factor": [1.0, 2.0, 4.0],
                "original_max_position_embeddings": POSITIONS,
            },
        },
    ),
    "gptj": (
        "gptj",
        {
            **_COMMON,
            "n_embd": 30,
            "n_head": 5,
            "n_layer": BLOCKS,
            "n_inner": 37,
            "n_positions": POSITIONS,
            "rotary_dim": 4,
        },
    ),
    "gpt_neox": ("gpt_neox", {**_FIVE, "rotary_pct": 0.5}),
    "gpt_neox_sequential": (
        "gpt_neox",
        {**_FIVE, "use_parallel_residual": False, "attention_bias": False},
    ),
    "opt": ("opt", _OPT),
    "opt_norm_after": ("opt", {**_OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 22}),
    "bloom": ("bloom", {**_COMMON, "hidden_size": 30, "n_head": 5, "n_layer": BLOCKS}),
    "bloom_norm_residual": (
        "bloom",
        {
            **_COMMON,
            "hidden_size": 30,
            "n_head": 3,
            "n_layer": BLOCKS,
            "apply_residual_connection_post_layernorm": True,
        },
    ),
    "falcon_multi_query": ("falcon", _FALCON),
    "falcon_grouped": (
        "falcon",
        {
            **_FALCON,
            "hidden_size": 36,
            "num_attention_heads": 6,
            "num_kv_heads": 2,
            "new_decoder_architecture": True,
        },
    ),
    "falcon_one_norm": (
        "falcon",
        {
            **_FALCON,
            "hidden_size": 36,
            "num_attention_heads": 6,
            "num_kv_heads": 3,
            "new_decoder_architecture": True,
            "num_ln_in_parallel_attn": 1,
        },
    ),
    "falcon_alibi": (
        "falcon",
        {**_FALCON, "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    ),
}
"""Name of a variant -> model type and settings."""
