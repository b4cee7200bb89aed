"""A short digest that tells one model's weights from another's."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pruning.adapters import adapter_for
from pruning.models.execution.offload import value_of
from pruning.utils.digest import sha256_of


def fingerprint(model: nn.Module) -> str:
    """16 hex digits of every weight's name, shape, dtype and up to 64 of its values.

    Samples only: hashing all of a large model would take longer than loading it.
    """
    return sha256_of(_samples(model), 16)


def _samples(model: nn.Module) -> Iterator[bytes]:
    blocks = adapter_for(model.config).blocks(model)
    for name, weight in model.named_parameters():
        values = value_of(blocks, weight).reshape(-1)
        values = values[:: max(1, values.numel() // 64)][:64].double().cpu()
        yield f"{name} {tuple(weight.shape)} {weight.dtype}".encode()
        yield values.numpy().tobytes()
