"""A model without its weights: what its config alone says, for checks before any work."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pruning.adapters import ModelAdapter, adapter_for
from pruning.artifacts.shapes import BYTES_PER_ELEMENT, ModelShape
from pruning.models.compact.config_key import KEY
from pruning.models.compact.load import pruned_skeleton, skeleton
from pruning.models.loading.config import read_config
from pruning.models.loading.resolve import locate, unconverted
from pruning.utils.errors import SourceError, Unsupported, one_line
from pruning.utils.memory import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Outline:
    """``model`` has its matrices on the meta device, in ``dtype``."""

    place: str
    config: Any
    model: PreTrainedModel
    adapter: ModelAdapter
    shape: ModelShape
    dtype: str


def outline(source: str, revision: str | None = None, dtype: str = "auto") -> Outline:
    """The outline of what :func:`pruning.load` would load; raises what that raises for a wrong
    source. Of a GGUF file that was not converted yet, the header is read."""
    from transformers import AutoConfig

    file = unconverted(source)
    if file is None:
        place, commit = locate(source, revision)
        return outline_of(read_config(source, place, commit), place, dtype)
    try:
        config = AutoConfig.from_pretrained(
            str(file.parent), gguf_file=file.name, trust_remote_code=False
        )
    except Exception as error:  # the reader's errors are many
        if is_out_of_memory(error):
            raise
        raise SourceError(f"{file} is not a readable GGUF file: {one_line(error)}.") from None
    return outline_of(config, str(file), dtype)


def outline_of(config: Any, place: str, dtype: str) -> Outline:
    """The same for a config in hand; raises Unsupported for another family."""
    import torch

    adapter = adapter_for(config)
    if dtype == "auto":
        dtype = str(config.dtype or torch.float32).removeprefix("torch.")
    if dtype not in BYTES_PER_ELEMENT:
        raise Unsupported(f"{place} is stored as {dtype}; choose --dtype float32.")
    built, own = getattr(torch, dtype), copy.deepcopy(config)  # building a model changes it
    pruned = getattr(own, KEY, None)
    model: Any = pruned_skeleton(own, built, place) if pruned else skeleton(own, built)
    return Outline(place, config, model, adapter, adapter.model_shape(model), dtype)
