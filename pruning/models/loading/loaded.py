"""A model in memory, ready for every later stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pruning.adapters import ModelAdapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LoadedModel:
    """``source`` is what the user asked for; ``identity`` names the very weights (hub commit, or
    size and time of local files; and what was pruned in memory) for cache keys; ``placement``
    where its blocks wait (see :mod:`pruning.models.loading.memory_needs`). Treat
    ``model`` as immutable."""

    model: PreTrainedModel
    tokenizer: Any
    adapter: ModelAdapter
    source: str
    revision: str | None
    identity: str
    placement: str = "whole"

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def device(self) -> str:
        return str(self.model.device)
