"""What a model will need, from its config alone, before its weights are read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pruning.artifacts.shapes import KINDS
from pruning.models.loading.config import read_config
from pruning.models.loading.memory_needs import MemoryEstimate
from pruning.models.loading.outline import Outline, outline_of
from pruning.models.loading.resolve import compute_devices, locate, memory_dtype, resolve_device
from pruning.models.loading.sizes import EVALUATION, Sizes, Task
from pruning.utils.errors import OutOfMemory


def chosen_placement(needs: MemoryEstimate, placement: str, task: Task | None) -> str:
    """The placement to load with for ``task`` (None: an evaluation will do where nothing more
    fits); raises OutOfMemory with the arithmetic when there is none."""
    # a caller that does not say what it wants may only want to evaluate
    for fits in (needs, replace(needs, task=EVALUATION))[: 2 if task is None else 1]:
        if placement == "auto" and (quickest := fits.placement()):
            return quickest
        if placement != "auto" and fits.fits_as(placement):
            return placement
    raise OutOfMemory(needs.sentence("whole" if placement == "auto" else placement))


def estimate(
    source: str,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str = "auto",
    task: Task | None = None,
) -> MemoryEstimate:
    """Estimate from the config; parameters are counted on the meta device, so exactly.

    Raises what :func:`pruning.load` raises for a wrong source.
    """
    dtype = memory_dtype(dtype, source)
    place, commit = locate(source, revision)
    where = resolve_device(device)
    config = read_config(source, place, commit)
    return of_config(config, place, dtype, where, task or Task(), len(compute_devices(where)))


def of_config(
    config: Any, place: str, dtype: str, device: str, task: Task, cards: int = 1
) -> MemoryEstimate:
    """The same for a config in hand; raises Unsupported for another family."""
    return of_outline(outline_of(config, place, dtype), device, task, cards)


def of_outline(outline: Outline, device: str, task: Task, cards: int = 1) -> MemoryEstimate:
    """The same for an outline in hand."""
    model, adapter, shape = outline.model, outline.adapter, outline.shape
    blocks = [sum(p.numel() for p in block.parameters()) for block in adapter.blocks(model)]
    parallel = adapter.parallel(adapter.blocks(model)[0])
    modules = [block.module(kind) for block in shape.blocks for kind in KINDS]
    sizes = Sizes(
        parameters=sum(p.numel() for p in model.parameters()),
        block_parameters=sum(blocks),
        largest_block=max(blocks),
        hidden=shape.hidden_size,
        inner=max(m.units_per_expert * m.unit_width for m in modules),
        active=max(m.units_per_expert * m.active * m.unit_width for m in modules),
        experts=max(m.experts for m in modules),
        heads=max(b.attention.units for b in shape.blocks),
        vocabulary=shape.vocab_size,
        streams=5 if parallel else 3,
        blocks=len(shape.blocks),
        routes=max(m.active for m in modules),
    )
    on_cpu = free_bytes("cpu") // task.processes
    free = on_cpu if device == "cpu" else free_bytes(device), on_cpu
    others = [f"{device}:{card}" for card in range(cards)] if device == "cuda" else []
    least = min(map(free_bytes, others), default=None)
    return MemoryEstimate(sizes, task, outline.dtype, device, *free, cards, least)


def free_bytes(device: str) -> int:
    """Bytes that can still be taken on ``device`` (of several cards, on the first). What torch's
    allocator has in its cache is free."""
    import psutil
    import torch

    available = psutil.virtual_memory().available
    if device.startswith("cuda"):
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.startswith("mps"):  # it shares the CPU's memory
        held = torch.mps.current_allocated_memory()
        cached = torch.mps.driver_allocated_memory() - held
        return min(torch.mps.recommended_max_memory() - held, available + cached)
    return available
