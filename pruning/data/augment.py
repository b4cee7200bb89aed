"""Copies of windows in which the model has rewritten a share of the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if

if TYPE_CHECKING:
    from torch import Tensor, dtype

SHARE = 0.5
"""Share of tokens that are drawn anew."""

_TOKENS_PER_BATCH = 512  # the odds of all tokens of a batch over the vocabulary are in memory


def resampled(
    model: Any,
    ids: Tensor,
    copies: int,
    seed: int,
    *,
    products: dtype | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Tensor:
    """``copies`` copies [copies·n, s] of the windows ``ids`` [n, s], window by window.

    In each copy every token but the first is, with probability SHARE, drawn from what the
    model expects at its place given the true tokens before it. All copies come from one forward
    pass. The dense model's outputs are the target of every recovery, so tokens it expects serve
    as well as the text's own, and each copy is new data to fit on. ``products``: number format
    in which the model multiplies (None: its weights'). Raises Cancelled.
    """
    import torch

    from pruning.models.execution.sampling import drawn

    generator = torch.Generator().manual_seed(seed)
    size = max(1, _TOKENS_PER_BATCH // ids.shape[1])
    total, rows = -(-len(ids) // size), []
    stop_if(should_cancel)
    for part, logits in _logits(model, ids, size, products, should_cancel):
        probs, part = logits[:, :-1].float().softmax(-1), part.cpu()
        tokens = drawn(probs.flatten(0, 1), copies, generator)
        tokens = tokens.T.reshape(copies, *probs.shape[:2]).transpose(0, 1)
        anew = torch.rand(tokens.shape, generator=generator) < SHARE
        copy = part[:, None].repeat(1, copies, 1)
        copy[..., 1:] = torch.where(anew, tokens, copy[..., 1:])
        rows.append(copy.flatten(0, 1))
        progress(Progress("rewrite", len(rows), total, "Rewriting calibration text"))
        stop_if(should_cancel)
    return torch.cat(rows)


def _logits(model: Any, ids: Tensor, size: int, products: dtype | None, should_cancel: CancelCheck):
    import torch

    from pruning.models.execution.blockwise import batched_logits
    from pruning.utils.precision import autocast_in

    with torch.no_grad(), autocast_in(products, model.device):
        yield from batched_logits(model, ids, size, should_cancel)
