"""Seconds of a forward pass, which costs are given as multiples of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter
from pruning.models.execution.blockwise import batches
from pruning.models.loading import LoadedModel

TIMED = 32
"""Windows that :func:`dense_pass` is timed on."""
Seconds = TypeVar("Seconds", float, np.ndarray)


@torch.inference_mode()
def forward_seconds(
    model: nn.Module,
    adapter: ModelAdapter,
    ids: Tensor,
    now: Callable[[], Seconds] = time.perf_counter,
) -> Seconds:
    """Seconds, by the clock or clocks ``now``, of one pass over ``ids`` [n, s] in batches, without
    the output layer, once the device has finished."""
    finish(model.device)
    started = now()
    for batch in batches(*ids.shape):
        adapter.backbone(model)(input_ids=ids[batch].to(model.device), use_cache=False)
    finish(model.device)
    return now() - started


def dense_pass(
    loaded: LoadedModel, ids: Tensor, now: Callable[[], Seconds] = time.perf_counter
) -> Seconds:
    """:func:`forward_seconds` of ``ids`` [n, s], timed on some of the windows, once warm."""
    some = ids[:TIMED]
    _, seconds = (
        forward_seconds(loaded.model, loaded.adapter, part, now) for part in (some[:1], some)
    )
    return seconds * len(ids) / len(some)


def finish(device: torch.device) -> None:
    """Wait for what ``device`` was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
