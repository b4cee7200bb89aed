"""Writes GGUF files for llama.cpp, with a width of its own for every block.

llama.cpp's ``deci`` graph is Llama's with per-block head and channel counts and optional biases,
so stock builds run what no other stock loader does.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from pruning.checkpoint.base_model import short_name
from pruning.checkpoint.gguf.tokenizer import write_vocabulary
from pruning.checkpoint.gguf.types import GgufType
from pruning.checkpoint.parts import Parts
from pruning.models.execution.offload import value_of
from pruning.models.loading.gguf_blocks import INSIDE, OUTSIDE, ROTATED, interleaved
from pruning.models.loading.gguf_header import BLOCKWISE
from pruning.models.loading.outline import Outline
from pruning.utils.errors import Unsupported
from pruning.utils.precision import to_float64

COMPUTES_LIKE = ("LlamaForCausalLM", "MistralForCausalLM")
"""Classes whose forward pass that graph reproduces; for others equal names would not be enough."""

_FILE_TYPES: dict[GgufType, int] = {"f32": 0, "f16": 1, "q8_0": 7}
_ROPES = ("default", "linear", "llama3")
_HALF_MAX = 65504.0


def check(parts: Parts | Outline) -> None:
    """Raise Unsupported with the reason when llama.cpp's graph would compute something else; the
    model's weights are not looked at."""
    model, config = parts.model, parts.model.config
    name = type(model).__name__
    if name not in COMPUTES_LIKE:
        raise Unsupported(
            f"llama.cpp runs blocks of different widths only for Llama-type models, not for "
            f"{name}; use the uniform form with llama.cpp's own converter."
        )
    rope = config.rope_parameters or {}
    rotary = model.model.rotary_emb
    window = getattr(config, "sliding_window", None)
    # (whether it is so, in words)
    problems = (
        (config.hidden_act not in ("silu", "swish"), f"activation {config.hidden_act!r}"),
        (rope.get("rope_type", "default") not in _ROPES, f"rope type {rope.get('rope_type')!r}"),
        (getattr(rotary, "attention_scaling", 1.0) != 1.0, "scaled attention"),
        (2 * len(rotary.inv_freq) != _head_width(parts), "rotary positions on part of a head"),
        (bool(window) and window < config.max_position_embeddings, f"sliding window {window}"),
    )
    for present, what in problems:
        if present:
            raise Unsupported(f"llama.cpp's per-block graph has no {what}; use another form.")


def write_file(parts: Parts, path: Path, kind: GgufType) -> tuple[str, ...]:
    """Write ``path`` tensor by tensor, so that no second copy of the model is held.

    Returns remarks. Raises Unsupported with the reason when llama.cpp cannot run the model.
    """
    import gguf

    check(parts)
    writer = gguf.GGUFWriter(path, BLOCKWISE)
    _describe(writer, parts, kind)
    write_vocabulary(writer, parts.loaded.tokenizer, parts.model.config.vocab_size)
    remarks = []
    shorter = 0
    for name, tensor in _tensors(parts):
        stored = _stored_type(name, tensor, kind)
        shorter += kind == "q8_0" and tensor.dim() == 2 and stored is gguf.GGMLQuantizationType.F16
        array = _encoded(tensor[:1] if tensor.dim() == 2 else tensor, stored)
        shape = (*tensor.shape[:-1], array.shape[-1])
        size = array.nbytes * (tensor.shape[0] if tensor.dim() == 2 else 1)
        writer.add_tensor_info(name, shape, array.dtype, size, raw_dtype=stored)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in _tensors(parts):
            writer.write_tensor_data(_encoded(tensor, _stored_type(name, tensor, kind)))
            _check_whole(writer.fout[0])
    finally:
        writer.close()
    if shorter:
        remarks.append(
            f"{shorter} matrices have rows that are no multiple of 32 and are stored as f16; "
            "round the widths to 32 to store all as q8_0."
        )
    return tuple(remarks)


def _check_whole(file: BinaryIO) -> None:
    """Raise OSError when the file is shorter than what went into it: numpy says nothing when the
    system refuses an array that is smaller than a buffer."""
    file.flush()
    if os.fstat(file.fileno()).st_size < file.tell():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _describe(writer: Any, parts: Parts, kind: GgufType) -> None:
    """Sizes, positions and where the model comes from."""
    config, widths, origin = parts.model.config, parts.widths, parts.origin
    writer.add_type("model")
    writer.add_name(f"{short_name(origin.name)} pruned")
    writer.add_description("Structured pruning without retraining, by Headroom.")
    if origin.licence:
        writer.add_license(origin.licence)
    if origin.repository:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, short_name(origin.name))
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{origin.repository}")
    writer.add_tags(["headroom", "structured-pruning"])
    writer.add_file_type(_FILE_TYPES[kind])
    if kind == "q8_0":
        writer.add_quantization_version(2)
    writer.add_block_count(len(widths))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_head_count([width.heads for width in widths])
    writer.add_head_count_kv([width.kv_heads for width in widths])
    writer.add_feed_forward_length([width.channels for width in widths])
    writer.add_key_length(_head_width(parts))
    writer.add_value_length(_head_width(parts))
    writer.add_rope_dimension_count(_head_width(parts))
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_string("headroom.recipe", parts.records.recipe.to_yaml())
    report = parts.records.report
    writer.add_string("headroom.versions", json.dumps(report.versions))


def _head_width(parts: Parts | Outline) -> int:
    return parts.adapter.attention(parts.adapter.blocks(parts.model)[0]).unit_width


def _tensors(parts: Parts) -> Iterator[tuple[str, Tensor]]:
    """llama.cpp's names and our weights, block by block; tied weights come once.

    Raises Unsupported for a weight that llama.cpp's graph has no place for.
    """
    factors = _rope_factors(parts)
    if factors is not None:
        yield "rope_freqs.weight", factors
    blocks = parts.adapter.blocks(parts.model)
    for name, parameter in parts.model.named_parameters():
        path, _, last = name.rpartition(".")
        tensor = value_of(blocks, parameter)
        if path in OUTSIDE:
            yield f"{OUTSIDE[path]}.{last}", tensor
            continue
        index, _, inner = path.removeprefix("model.layers.").partition(".")
        if not index.isdigit() or inner not in INSIDE:
            raise Unsupported(f"llama.cpp's per-block graph has no place for {name}.")
        target = INSIDE[inner]
        if target in ROTATED:
            tensor = interleaved(tensor, _head_width(parts))
        yield f"blk.{index}.{target}.{last}", tensor


def _rope_factors(parts: Parts) -> Tensor | None:
    """What llama.cpp divides each rotary frequency by; None when they are the plain ones."""
    config = parts.model.config
    width = _head_width(parts)
    base = float(config.rope_parameters["rope_theta"])
    plain = base ** (-to_float64(torch.arange(0, width, 2)) / width)
    factors = plain / to_float64(parts.model.model.rotary_emb.inv_freq.detach().cpu())
    return None if torch.allclose(factors, torch.ones_like(factors), rtol=1e-5) else factors.float()


def _stored_type(name: str, tensor: Tensor, kind: GgufType) -> Any:
    from gguf import GGMLQuantizationType

    if tensor.dim() < 2 or kind == "f32":
        return GGMLQuantizationType.F32  # norms and biases are small and matter
    if kind == "q8_0" and tensor.shape[-1] % 32 == 0:
        return GGMLQuantizationType.Q8_0
    return GGMLQuantizationType.F16


def _encoded(tensor: Tensor, stored: Any) -> np.ndarray:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    array = tensor.float().numpy()
    if stored is GGMLQuantizationType.F16:
        if np.abs(array).max() > _HALF_MAX:
            raise Unsupported("A weight is too large for f16; use --gguf-type f32.")
        return array.astype(np.float16)
    return quantize(array, stored) if stored is GGMLQuantizationType.Q8_0 else array
