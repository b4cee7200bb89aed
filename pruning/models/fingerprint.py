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


def content_digest(model: nn.Module) -> str:
    """32 hex digits of every parameter and buffer, bit for bit: a key for caches of what was
    learned about a model that has no files. Reads all weights once (about a second per GB)."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()
