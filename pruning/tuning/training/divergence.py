"""How far a model's predictions are from the dense model's: the loss, and what is judged by."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pruning.artifacts.events import CancelCheck, never, stop_if
from pruning.evaluate.perplexity import windows_per_batch
from pruning.models.execution.blockwise import batched_logits
from pruning.utils.precision import to_float64


def divergences(dense: Tensor, logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence [t] (nats, float32) of what ``logits`` [t, vocabulary] say from
    what ``dense`` ones say: the sum of p (log p - log q) over the vocabulary."""
    wanted, found = dense.float().log_softmax(-1), logits.float().log_softmax(-1)
    return nn.functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)


@torch.inference_mode()
def mean_divergence(
    dense: nn.Module, model: nn.Module, ids: Tensor, should_cancel: CancelCheck = never
) -> float | None:
    """Mean over all tokens of windows ``ids`` [n, s]; None where it is not finite. Raises
    Cancelled."""
    size, total = max(1, windows_per_batch(dense, ids.shape[1]) // 4), 0.0
    sides = (batched_logits(side, ids, size, should_cancel) for side in (dense, model))
    for (_, wanted), (_, found) in zip(*sides, strict=True):
        stop_if(should_cancel)
        apart = divergences(wanted.flatten(0, 1), found.flatten(0, 1))
        total += to_float64(apart).sum().item()
    mean = total / ids.numel()
    return mean if math.isfinite(mean) else None
