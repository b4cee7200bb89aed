"""Perplexity, exactly as the field's tables have it (method section 5)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pruning.artifacts.comparison import Perplexity
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.data.bos import Bos
from pruning.data.windows import Windows, evaluation_windows
from pruning.models.execution.blockwise import batched_logits
from pruning.utils.errors import UsageError
from pruning.utils.memory import device_guard
from pruning.utils.precision import to_float64

_LOGITS_PER_BATCH = 2**26  # 256 MiB of float32 logits


@torch.inference_mode()
def perplexity(
    model: nn.Module,
    tokenizer: Any,
    source: str,
    *,
    seq_len: int = 128,
    windows: int | None = None,
    bos: Bos = "auto",
    text_field: str | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Perplexity:
    """Perplexity of ``model`` on the first ``windows`` (None: all) windows of ``source``.

    ``bos``: what a BOS token leads: ``every`` window (it counts among ``seq_len`` and is not
    predicted), the text's ``first`` token alone (as published tables have it, which tokenise once),
    ``none``; ``auto``: every window where the tokenizer adds one. ``text_field``: column of a file.
    Logits are taken in the model's dtype, the likelihood in float32, the sum in float64.
    Raises UsageError, SourceError (text too short or absent), OutOfMemory and Cancelled.
    """
    if seq_len < 2:
        raise UsageError(f"seq_len {seq_len} leaves nothing to predict; choose at least 2.")
    if windows is not None and windows < 1:
        raise UsageError(f"{windows} windows leave nothing to evaluate; choose at least 1.")
    started = time.perf_counter()
    text = evaluation_windows(
        source, model, tokenizer, seq_len, windows, bos=bos, text_field=text_field
    )
    total, count, done = 0.0, len(text.ids), 0
    stop_if(should_cancel)
    for losses in batched_losses(model, text.ids, should_cancel):
        total += to_float64(losses).sum().item()
        done += len(losses)
        progress(Progress("evaluate", done, count, f"{done} of {count} windows"))
        stop_if(should_cancel)
    return perplexity_of(model, text, total, time.perf_counter() - started)


def perplexity_of(model: nn.Module, text: Windows, total: float, seconds: float) -> Perplexity:
    """The perplexity of ``model`` on ``text``, whose tokens' negative log-likelihoods add up to
    ``total`` nats."""
    windows, seq_len = text.ids.shape
    tokens = windows * (seq_len - 1)
    nll = total / tokens
    return Perplexity(
        perplexity=math.exp(nll) if nll < 700 else math.inf,
        nll=nll,
        tokens=tokens,
        windows=windows,
        seq_len=seq_len,
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=round(seconds, 3),
        corpus=text.source,
        split="test",
        bos=text.bos,
        fingerprint=text.fingerprint,
    )


def batched_losses(
    model: nn.Module, ids: Tensor, should_cancel: CancelCheck = never
) -> Iterator[Tensor]:
    """Negative log-likelihoods [batch, s - 1] (nats, float32) of tokens 2 to s of each window of
    ``ids`` [windows, s], as many windows at a time as a bounded number of logits allows. Raises
    OutOfMemory."""
    size = windows_per_batch(model, ids.shape[1])
    with device_guard(model.device, "use shorter windows"):
        for batch, logits in batched_logits(model, ids, size, should_cancel):
            yield next_token_losses(logits, batch[:, 1:])


def windows_per_batch(model: nn.Module, seq_len: int) -> int:
    """How many windows of ``seq_len`` tokens a bounded number of logits allows at a time."""
    return max(1, _LOGITS_PER_BATCH // (seq_len * model.config.vocab_size))


def next_token_losses(logits: Tensor, following: Tensor) -> Tensor:
    """Negative log-likelihoods [n, s - 1] (nats, float32) of the ``following`` tokens [n, s - 1]
    by ``logits`` [n, s, vocabulary]."""
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), following.flatten(), reduction="none"
    ).view(len(following), -1)
