"""Which tokens a pruned model finds less likely than the dense one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pruning.artifacts.comparison import Pair, Passage, Perplexity, TokenLosses
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.data.windows import evaluation_windows
from pruning.evaluate.perplexity import batched_losses, perplexity_of
from pruning.utils.errors import UsageError
from pruning.utils.precision import to_float64


@torch.inference_mode()
def read_with_both(
    dense: nn.Module,
    pruned: nn.Module,
    tokenizer: Any,
    source: str,
    *,
    seq_len: int = 128,
    windows: int | None = 16,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> tuple[Pair[Perplexity], TokenLosses]:
    """Perplexities of both models and their losses, token by token, on the first ``windows`` (None:
    all) windows of the test split of ``source``.

    Raises UsageError, SourceError (text too short or absent), OutOfMemory and Cancelled.
    """
    if seq_len < 2 or (windows is not None and windows < 1):
        raise UsageError("At least one window of at least 2 tokens is needed; ask for more.")
    text = evaluation_windows(source, dense, tokenizer, seq_len, windows)
    total = 2 * len(text.ids)
    scores: list[Perplexity] = []
    sides: list[list[list[float]]] = []
    for name, model in (("dense", dense), ("pruned", pruned)):
        started, rows = time.perf_counter(), []
        done = len(sides) * len(text.ids)
        stop_if(should_cancel)
        for losses in batched_losses(model, text.ids, should_cancel):
            rows.append(losses.cpu())
            done += len(losses)
            progress(Progress("evaluate", done, total, f"the {name} model reads"))
            stop_if(should_cancel)
        nats = sum(to_float64(losses).sum().item() for losses in rows)
        scores.append(perplexity_of(model, text, nats, time.perf_counter() - started))
        sides.append(torch.cat(rows).tolist())
    passages = (
        Passage(tuple(pieces(tokenizer, ids)), tuple(before), tuple(after))
        for ids, before, after in zip(text.ids.tolist(), *sides, strict=True)
    )
    return Pair(*scores), TokenLosses(source, "test", seq_len, tuple(passages))


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; joined they are the decoded text.

    A token that ends inside a character adds nothing: the one that completes it has it all.
    """
    added, before = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        whole = end == len(ids) or not text.endswith("\ufffd")
        added.append(text[len(before) :] if whole else "")
        before = text if whole else before
    return added
