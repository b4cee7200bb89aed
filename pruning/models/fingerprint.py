"""A short digest that tells one model's weights from another's."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pruning.adapters import adapter_for
from pruning.models.execution.offload import located
from pruning.utils.digest import sha256_of
from pruning.utils.precision import to_float64


def fingerprint(model: nn.Module) -> str:
    """16 hex digits of every weight's name, shape, dtype and up to 64 of its values.

    Samples only: hashing all of a large model would take longer than loading it.
    """
    return sha256_of(_samples(model), 16)


def _samples(model: nn.Module) -> Iterator[bytes]:
    blocks = adapter_for(model.config).blocks(model)
    for name, weight in model.named_parameters():
        values = located(blocks, weight).reshape(-1)
        # sliced where it is: only these values are copied to the CPU
        values = values[:: max(1, values.numel() // 64)][:64].cpu()
        yield f"{name} {tuple(weight.shape)} {weight.dtype}".encode()
        yield to_float64(values).numpy().tobytes()


def content_digest(model: nn.Module) -> str:
    """32 hex digits of every parameter and buffer, bit for bit: a key for caches of what was
    learned about a model that has no files. Reads all weights once (about a second per GB)."""
    return sha256_of(_content(model), 32)


def _content(model: nn.Module) -> Iterator[bytes | memoryview]:
    import torch

    for name, tensor in sorted(model.state_dict().items()):
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        flat = tensor.detach().cpu().contiguous().flatten()
        yield memoryview(flat.view(torch.uint8).numpy())
