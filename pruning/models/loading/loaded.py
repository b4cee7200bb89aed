"""A model in memory, ready for every later stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pruning.adapters import ModelAdapter
from pruning.artifacts.shapes import ModelShape
from pruning.distributed.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LoadedModel:
    """``source`` is what the user asked for; ``identity`` names the very weights (hub commit, or
    content of local files; and what was pruned in memory) for cache keys; ``placement``
    where its blocks wait (see :mod:`pruning.models.loading.memory_needs`); ``file_dtype``: what
    a model made from it is saved in (None: as it computes); ``ranks``: the processes that work on
    it together, each with a copy. Treat ``model`` as immutable."""

    model: PreTrainedModel
    tokenizer: Any
    adapter: ModelAdapter
    source: str
    revision: str | None
    identity: str
    placement: str = "whole"
    file_dtype: str | None = None
    ranks: Ranks = ALONE

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def saved_dtype(self) -> str:
        return self.file_dtype or self.dtype

    @property
    def shape(self) -> ModelShape:
        """Sizes, with bytes as they are saved."""
        return replace(self.adapter.model_shape(self.model), dtype=self.saved_dtype)

    @property
    def device(self) -> str:
        return str(self.model.device)
