"""A model without its weights: what its config alone says, for checks before any work."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.adapters import ModelAdapter, adapter_for
from pruning.artifacts.rules import COMPUTED_IN
from pruning.artifacts.shapes import BYTES_PER_ELEMENT, ModelShape
from pruning.models.compact.config_key import KEY
from pruning.models.compact.load import pruned_skeleton, skeleton
from pruning.models.loading.config import is_dequantised, raw_config, read_config
from pruning.models.loading.files import headers, stored_dtype, weight_files
from pruning.models.loading.gguf import described
from pruning.models.loading.guarded import guarded
from pruning.models.loading.resolve import locate, memory_dtype, unconverted
from pruning.utils.errors import Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Outline:
    """``model`` has its matrices on the meta device, in ``dtype``; bytes of ``shape`` are those of
    what is saved."""

    place: str
    config: Any
    model: PreTrainedModel
    adapter: ModelAdapter
    shape: ModelShape
    dtype: str


def outline(source: str, revision: str | None = None, dtype: str | None = "auto") -> Outline:
    """The outline of what :func:`pruning.load` would load; raises what that raises for a wrong
    source. Of a GGUF file that was not converted yet, the header is read. Without a ``dtype``, what
    is saved is told by the files of a folder; of a model of the hub, by its config."""
    in_memory = memory_dtype(dtype, source)
    file = unconverted(source)
    if file is None:
        place, commit = locate(source, revision, convert=False)
        config = read_config(source, place, commit)
        saved = _file_dtype(place, config) if dtype is None else None
        return outline_of(config, place, in_memory, saved)
    config, saved = described(file)
    return outline_of(config, str(file), in_memory, saved if dtype is None else None)


def _file_dtype(place: str, config: Any) -> str:
    if Path(place).is_dir() and not is_dequantised(raw_config(Path(place, "config.json"))):
        return stored_dtype(headers(weight_files(place, None)))
    name = str(config.dtype).removeprefix("torch.")
    return name if name in BYTES_PER_ELEMENT else COMPUTED_IN


def outline_of(config: Any, place: str, dtype: str, saved_dtype: str | None = None) -> Outline:
    """The same for a config in hand, to be saved in ``saved_dtype`` (None: in ``dtype``); raises
    Unsupported for another family, SourceError for a config that describes no model."""
    return guarded(place, _outline_of, config, place, dtype, saved_dtype)


def _outline_of(config: Any, place: str, dtype: str, saved_dtype: str | None) -> Outline:
    import torch

    adapter = adapter_for(config)
    if dtype == "auto":
        dtype = str(config.dtype or torch.float32).removeprefix("torch.")
    if dtype not in BYTES_PER_ELEMENT:
        raise Unsupported(f"{place} is stored as {dtype}; choose --dtype float32.")
    built, own = getattr(torch, dtype), copy.deepcopy(config)  # building a model changes it
    pruned = getattr(own, KEY, None)
    model: Any = pruned_skeleton(own, built, place) if pruned else skeleton(own, built)
    shape = replace(adapter.model_shape(model), dtype=saved_dtype or dtype)
    return Outline(place, config, model, adapter, shape, dtype)
