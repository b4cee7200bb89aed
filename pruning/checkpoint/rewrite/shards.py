"""Writes a model whose blocks are offloaded, with one shard in memory at a time."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pruning.models.compact.load import INDEX, SINGLE
from pruning.models.execution.offload import value_of

SHARD_BYTES = 2 * 10**9


def write_shards(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    place: Path,
    dtype: str | None = None,
    limit: int = SHARD_BYTES,
) -> None:
    """Weights as :func:`write_weights` writes them, config and generation config."""
    write_weights(model, blocks, place, dtype, limit)
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], dtype or model.dtype
    config.save_pretrained(place)
    if model.can_generate():
        model.generation_config.save_pretrained(place)


def write_weights(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    place: Path,
    dtype: str | None = None,
    limit: int = SHARD_BYTES,
) -> None:
    """Parameters in ``dtype`` (None: as they are), buffers as they are, in shards of about
    ``limit`` bytes in memory under the model's own names; a tied weight is stored once. Raises
    OSError, SafetensorError."""
    shards = list(_shards(model, limit))
    names = [SINGLE]
    if len(shards) > 1:
        names = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, 1 + len(shards))]
    written = 0
    for file, shard in zip(names, shards, strict=True):
        values = {name: value_of(blocks, tensor).contiguous() for name, tensor in shard.items()}
        if dtype is not None:
            weights = (name for name, tensor in shard.items() if isinstance(tensor, nn.Parameter))
            values |= {name: values[name].to(getattr(torch, dtype)) for name in weights}
        save_file(values, place / file, metadata={"format": "pt"})
        written += sum(value.nbytes for value in values.values())
        del values
    if len(shards) > 1:
        where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": written}, "weight_map": where}
        (place / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _shards(model: nn.Module, limit: int) -> Iterator[dict[str, Tensor]]:
    """Tensors by name, not more than ``limit`` bytes at once unless one alone is larger."""
    shard: dict[str, Tensor] = {}
    size, seen = 0, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if shard and size + tensor.nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard
