"""Giving memory back to the machine once models are dropped."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says what a container may take: a number, or ``max``."""


def total_bytes() -> int:
    """Memory of the machine, or of the container where that has less; 16 GiB where neither says."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = 16 << 30
    try:
        return min(machine, int(CONTAINER.read_text(encoding="ascii")))
    except (ValueError, OSError):
        return machine


def storages(models: Iterable[Any]) -> dict[int, int]:
    """``{address: bytes}`` of the parameters' storages; what models share appears once."""
    sizes = {}
    for model in models:
        for parameter in model.parameters():
            if parameter.device.type == "meta":
                continue  # it waits on disk
            storage = parameter.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sizes


def leave_out_of_collections() -> None:
    """Exempt from the collector what is alive now. Modules stay anyway, and looking at all of them
    stops every visitor for a third of a second."""
    gc.collect()
    gc.freeze()


def free_memory() -> None:
    """Collect dropped models at once and hand freed memory back to the system and the GPU.

    Models sit in reference cycles, and both allocators keep what was freed for themselves.
    """
    gc.collect()
    torch = sys.modules.get("torch")  # not imported here: without torch there is no model
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
    if sys.platform == "linux":
        # other C libraries than glibc have no such function and need none
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
