"""Tokens per second and peak memory of a model on its device."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from pruning.artifacts.comparison import Speed
from pruning.models.execution.kv_cache import CachedReader
from pruning.utils.memory import device_guard


@torch.inference_mode()
def tokens_per_second(
    model: nn.Module, *, prompt_tokens: int = 128, new_tokens: int = 32, repeats: int = 3
) -> Speed:
    """Time prefill and cached decoding of random tokens; the best of ``repeats`` runs each. Raises
    OutOfMemory."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (1, prompt_tokens), generator=generator)
    ids = ids.to(model.device)
    with device_guard(model.device, "use fewer tokens"):
        runs = [_timed(model, ids, new_tokens) for _ in range(repeats)]
    prefill, decode = (min(seconds) for seconds in zip(*runs, strict=True))
    return Speed(prompt_tokens / prefill, new_tokens / decode)


def _timed(model: nn.Module, ids: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds of reading ``ids`` [1, s] and of writing ``new_tokens`` one by one."""
    reader = CachedReader(model)
    started = _now(model)
    logits = reader.read(ids, logits_to_keep=1)
    read = _now(model)
    for _ in range(new_tokens):
        logits = reader.read(logits[:, -1:].argmax(-1))
    return read - started, _now(model) - read


def _now(model: nn.Module) -> float:
    """The clock, once the device has finished what was asked of it."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    elif model.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def reset_peak_memory(devices: Iterable[torch.device]) -> None:
    """Let the peak of GPUs begin anew; that of the process goes on."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)


def reset_process_peak() -> None:
    """Let the peak of the process begin anew, where the system (Linux) can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_bytes(*devices: torch.device) -> int:
    """Most memory held so far: the process's on the CPU, the allocator's on a GPU, of several the
    sum."""
    if any(device.type == "cuda" for device in devices):
        return sum(torch.cuda.max_memory_allocated(d) for d in devices if d.type == "cuda")
    try:
        # Linux: ru_maxrss would also count the process that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
