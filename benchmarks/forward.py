"""Seconds of a forward pass, which costs are given as multiples of."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter
from pruning.models.execution.blockwise import batches


@torch.inference_mode()
def forward_seconds(
    model: nn.Module,
    adapter: ModelAdapter,
    ids: Tensor,
    now: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds, by the clock ``now``, of one pass over ``ids`` [n, s] in batches, without the output
    layer, once the device has finished."""
    finish(model.device)
    started = now()
    for batch in batches(*ids.shape):
        adapter.backbone(model)(input_ids=ids[batch].to(model.device), use_cache=False)
    finish(model.device)
    return now() - started


def finish(device: torch.device) -> None:
    """Wait for what ``device`` was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
