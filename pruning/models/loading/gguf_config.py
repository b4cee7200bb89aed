"""What the keys of a GGUF header say, as transformers' config.

The reader of transformers passes over keys that it does not know. Here each one is applied, or
known to change nothing, or the file is refused by name.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from pruning.models.loading.gguf_header import FACTORS, Header
from pruning.utils.errors import Unsupported

SETTINGS = {
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_weights_norm": ("norm_topk_prob",),
    "logit_scale": ("logit_scale",),
    "use_parallel_residual": ("use_parallel_residual",),
}
"""Keys of llama.cpp (behind the architecture), and what transformers' configs call the same."""

IN_SHAPES = {
    "context_length",
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "expert_shared_count",
    "tensor_data_layout",
    "rope.scaling.finetuned",
}
"""Keys that change no number, or that the shapes of the tensors, which are checked, say again."""

NEUTRAL: dict[str, Any] = {
    "attention.causal": True,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 8.0,
    "attention.temperature_length": 0,
    "embedding_scale": 1.0,
    "expert_gating_func": 1,
    "expert_group_count": 1,
    "expert_group_used_count": 1,
    "expert_weights_scale": 1.0,
    "logit_scale": 1.0,
    "pooling_type": 0,
    "residual_scale": 1.0,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
}
"""Values with which a key says nothing that models do not do anyway."""

_ROPE = {
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
}


def applied(source: Path, header: Header, config: Any) -> Any:
    """``config`` with everything that the header says; raises Unsupported for what cannot be."""
    width = header.settings.get("attention.key_length")
    for name, value in header.settings.items():
        if name in IN_SHAPES or name in _ROPE:
            continue
        known = _apply(config, SETTINGS.get(name, ()), value) or _same(NEUTRAL.get(name), value)
        if not known or (name == "attention.value_length" and not _same(width or value, value)):
            raise Unsupported(
                f"{source} says {name} = {str(value)[:40]}, which cannot be applied here; use the "
                "safetensors model that it was made from."
            )
    _apply_positions(source, header, config)
    return config


def _apply(config: Any, names: tuple[str, ...], value: Any) -> bool:
    """Give ``value`` to the first of ``names`` that ``config`` has; False when it has none."""
    for name in names:
        if hasattr(config, name) and not isinstance(value, list):
            if not _same(getattr(config, name), value):
                setattr(config, name, value)
            return True
    return names == ("head_dim",) and _same(_head_width(config), value)


def _same(one: Any, other: Any) -> bool:
    """Equal, up to the rounding of float32, in which headers store numbers."""
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6)
    return one is not None and one == other


def _head_width(config: Any) -> int:
    width = getattr(config, "head_dim", None)
    return width or config.hidden_size // config.num_attention_heads


def _apply_positions(source: Path, header: Header, config: Any) -> None:
    """Give ``config`` the rotary base and scaling."""
    said = header.settings
    rope = getattr(config, "rope_parameters", None)
    scaled = FACTORS in header.tensors or said.get("rope.scaling.type", "none") != "none"
    if rope is None:
        if scaled or "rope.freq_base" in said:
            raise _no_rope(source)
        return
    full = rope.get("full_attention", rope)
    base = said.get("rope.freq_base")
    if base is not None and not _same(full.get("rope_theta"), base):
        full["rope_theta"] = base
    width = int(_head_width(config) * (full.get("partial_rotary_factor") or 1.0))
    if said.get("rope.dimension_count", width) != width:
        full["partial_rotary_factor"] = said["rope.dimension_count"] / _head_width(config)
        width = said["rope.dimension_count"]
    scaling = _scaling(source, header, config)
    if FACTORS in header.tensors:
        if scaling:
            raise _no_rope(source)
        scaling = _of_factors(source, header, full["rope_theta"], width)
    full.update(scaling)


def _scaling(source: Path, header: Header, config: Any) -> dict[str, Any]:
    """What the keys of the header say, as transformers' ``rope_parameters``."""
    said = header.settings
    kind = said.get("rope.scaling.type", "linear" if "rope.scale_linear" in said else "none")
    factor = float(said.get("rope.scaling.factor", said.get("rope.scale_linear", 1.0)))
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    original = said.get("rope.scaling.original_context_length")
    if kind != "yarn" or original is None:
        raise _no_rope(source, kind)
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}


def _of_factors(source: Path, header: Header, base: float, width: int) -> dict[str, Any]:
    """The scaling that divides the frequencies as the tensor of factors does: a linear one, or
    Llama 3's with its published bounds and some original context length."""
    factors = np.asarray(header.tensors[FACTORS].data, dtype=np.float64).reshape(-1)
    if factors.size != width // 2:
        raise _no_rope(source, "of another width")
    factor = float(factors.max())
    if np.allclose(factors, 1.0, rtol=1e-5):
        return {}
    if np.allclose(factors, factor, rtol=1e-5):
        return {"rope_type": "linear", "factor": factor}
    low, high = 1.0, 4.0
    waves = 2 * np.pi * base ** (np.arange(0, width, 2) / width)
    for original in (8192, *(2**n for n in range(20, 2, -1))):
        smooth = np.clip((original / waves - low) / (high - low), 0, 1)
        wanted = 1 / ((1 - smooth) / factor + smooth)
        if np.allclose(factors, wanted, rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": _rounded(factor),
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    raise _no_rope(source, "with factors of its own")


def _rounded(factor: float) -> float:
    """Without the rounding of float32."""
    return float(round(factor)) if math.isclose(factor, round(factor), rel_tol=1e-6) else factor


def _no_rope(source: Path, kind: str = "") -> Unsupported:
    what = f"rotary positions {kind}".strip()
    return Unsupported(
        f"{source} has {what}, which cannot be read here; use the safetensors model that it was "
        "made from."
    )
