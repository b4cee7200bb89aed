"""Feeding a model piece by piece, with a cache of the keys and values of what it has read."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache


class CachedReader:
    """Feeds a model piece by piece; what came before is remembered.

    transformers calls the argument ``cache`` from 5.24 on and ``past_key_values`` before; the
    model's own signature says which.
    """

    def __init__(self, model: nn.Module) -> None:
        known = inspect.signature(model.forward).parameters
        self._name = "cache" if "cache" in known else "past_key_values"
        self._model, self._cache = model, DynamicCache(config=model.config)

    def read(self, ids: Tensor, **more: Any) -> Tensor:
        """Logits [n, s, vocabulary] of the next tokens ``ids`` [n, s]; ``more``: for the model."""
        more[self._name] = self._cache
        return self._model(input_ids=ids, use_cache=True, **more).logits
