"""A short digest that tells one model's weights from another's."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def fingerprint(model: nn.Module) -> str:
    """16 hex digits of every weight's name, shape, dtype and up to 64 of its values.

    Samples only: hashing all of a large model would take longer than loading it.
    """
    from pruning.adapters import adapter_for
    from pruning.models.execution.offload import value_of

    found = hashlib.sha256()
    blocks = adapter_for(model.config).blocks(model)
    for name, weight in model.named_parameters():
        values: Any = value_of(blocks, weight).reshape(-1)
        values = values[:: max(1, values.numel() // 64)][:64].double().cpu()
        found.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        found.update(values.numpy().tobytes())
    return found.hexdigest()[:16]
