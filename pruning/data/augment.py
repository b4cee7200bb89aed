"""Augmentations: copies of windows in which a share of the tokens is resampled from the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if

if TYPE_CHECKING:
    from torch import Tensor, dtype

SHARE = 0.5
"""Share of tokens that are resampled."""

_TOKENS_PER_BATCH = 512  # for all tokens of a batch the vocabulary's probabilities are in memory


def resampled(
    model: Any,
    ids: Tensor,
    copies: int,
    seed: int,
    *,
    autocast_dtype: dtype | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Tensor:
    """``copies`` augmentations [copies·n, s] of the windows ``ids`` [n, s], window by window.

    In each of them every token but the first is, with probability SHARE, sampled from what the
    model expects at its place given the true tokens before it. All come from one forward pass.
    The dense model's outputs are the target of every recovery, so tokens it expects serve as well
    as the text's own, and each augmentation is new data to fit on. The model runs in
    ``autocast_dtype`` (None: that of its weights). Raises Cancelled, and Unsupported when the
    model's outputs are not numbers.
    """
    import torch

    from pruning.models.execution.sampling import sample

    generator = torch.Generator().manual_seed(seed)
    size = max(1, _TOKENS_PER_BATCH // ids.shape[1])
    total, rows = -(-len(ids) // size), []
    stop_if(should_cancel)
    for part, logits in _logits(model, ids, size, autocast_dtype, should_cancel):
        probs, part = logits[:, :-1].float().softmax(-1), part.cpu()
        tokens = sample(probs.flatten(0, 1), copies, generator)
        tokens = tokens.T.reshape(copies, *probs.shape[:2]).transpose(0, 1)
        chosen = torch.rand(tokens.shape, generator=generator) < SHARE
        copy = part[:, None].repeat(1, copies, 1)
        copy[..., 1:] = torch.where(chosen, tokens, copy[..., 1:])
        rows.append(copy.flatten(0, 1))
        progress(Progress("rewrite", len(rows), total, "Resampling calibration text"))
        stop_if(should_cancel)
    return torch.cat(rows)


def _logits(
    model: Any, ids: Tensor, size: int, autocast_dtype: dtype | None, should_cancel: CancelCheck
) -> Iterator[tuple[Tensor, Tensor]]:
    import torch

    from pruning.models.execution.blockwise import batched_logits
    from pruning.utils.precision import autocast_in

    with torch.no_grad(), autocast_in(autocast_dtype, model.device):
        yield from batched_logits(model, ids, size, should_cancel)
