"""Perplexity, exactly as the field's tables have it (method section 5)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.data.bos import Bos, Leading
from pruning.data.windows import evaluation_windows
from pruning.models.execution.blockwise import batched_logits
from pruning.utils.errors import UsageError
from pruning.utils.memory import device_guard
from pruning.utils.precision import to_float64

_LOGITS_PER_BATCH = 2**26  # 256 MiB of float32 logits

_BOS = {
    "every": "a BOS token before every window, counted in it",
    "first": "with a BOS token first",
    "none": "no BOS token",
}


@dataclass(frozen=True)
class Perplexity:
    """``nll``: mean negative log-likelihood per predicted token, in nats; ``perplexity`` is
    its exponential; ``tokens`` predicted over ``windows`` windows of ``seq_len``."""

    perplexity: float
    nll: float
    tokens: int
    windows: int
    seq_len: int
    dtype: str
    seconds: float
    corpus: str
    split: str
    bos: Leading
    fingerprint: str

    def protocol(self) -> str:
        """The sentence that belongs beside the number."""
        bos = _BOS[self.bos]
        return (
            f"{self.corpus} ({self.split}), tokenised once ({bos}), {self.windows} consecutive "
            f"windows of {self.seq_len} tokens, tokens 2 to {self.seq_len} of each predicted, "
            f"{self.dtype}."
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    tokens = count * (seq_len - 1)
    nll = total / tokens
    return Perplexity(
        perplexity=math.exp(nll) if nll < 700 else math.inf,
        nll=nll,
        tokens=tokens,
        windows=count,
        seq_len=seq_len,
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=round(time.perf_counter() - started, 3),
        corpus=source,
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
    size = max(1, _LOGITS_PER_BATCH // (ids.shape[1] * model.config.vocab_size))
    with device_guard(model.device, "use shorter windows"):
        for batch, logits in batched_logits(model, ids, size, should_cancel):
            yield nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="none"
            ).view(len(batch), -1)
