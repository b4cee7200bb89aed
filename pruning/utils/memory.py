"""Running out of memory, whatever raises it, in one sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from safetensors import SafetensorError

from pruning.utils.errors import OutOfMemory

_SAID = ("out of memory", "not enough memory", "alloc_failed", "cannot allocate memory")
"""CUDA and MPS; the CPU's allocator; cuBLAS, cuSOLVER and cuDNN; what maps a file. All but CUDA's
own allocator raise a plain RuntimeError."""
_THREAD = "can't start new thread"  # there is none for its stack


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that some memory is exhausted."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, (RuntimeError, SafetensorError)):  # torch.OutOfMemoryError is one
        text = f"{type(error).__name__} {error}".lower()
        return "outofmemory" in text or any(words in text for words in (*_SAID, _THREAD))
    return isinstance(error, MemoryError)


@contextmanager
def memory_guard(sentence: str) -> Iterator[None]:
    """Raises OutOfMemory with ``sentence`` where the memory is exhausted inside."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(sentence) from None


def device_guard(device: object, remedy: str) -> AbstractContextManager[None]:
    """The same for work on ``device``; ``remedy``: what takes less ("use fewer windows")."""
    return memory_guard(
        f"The memory of {device} is exhausted; {remedy}, bfloat16, or another device."
    )
