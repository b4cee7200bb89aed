"""Which tokens a pruned model finds less likely than the dense one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.data.windows import evaluation_windows
from pruning.evaluate.perplexity import batched_losses
from pruning.utils.errors import UsageError


@dataclass(frozen=True)
class Passage:
    """One window of text. ``pieces`` [s]: the text of each token (joined they are the passage);
    ``dense``, ``pruned`` [s - 1]: negative log-likelihood in nats of tokens 2 to s."""

    pieces: tuple[str, ...]
    dense: tuple[float, ...]
    pruned: tuple[float, ...]

    @property
    def rises(self) -> tuple[float, ...]:
        """Nats by which each predicted token became less likely [s - 1]; negative: likelier."""
        return tuple(b - a for a, b in zip(self.dense, self.pruned, strict=True))

    @property
    def mean_rise(self) -> float:
        """Mean of :attr:`rises`."""
        return sum(self.rises) / len(self.rises)


@dataclass(frozen=True)
class TokenLosses:
    """The passages of a text, in order, and where they come from."""

    corpus: str
    split: str
    seq_len: int
    passages: tuple[Passage, ...]

    def worst(self, count: int) -> list[tuple[int, int, float]]:
        """``(passage, token, rise in nats)`` of the tokens whose likelihood fell most."""
        rises = [
            (index, place, rise)
            for index, passage in enumerate(self.passages)
            for place, rise in enumerate(passage.rises, start=1)
        ]
        return sorted(rises, key=lambda item: -item[2])[:count]


@torch.inference_mode()
def token_losses(
    dense: nn.Module,
    pruned: nn.Module,
    tokenizer: Any,
    source: str,
    *,
    seq_len: int = 128,
    windows: int | None = 16,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> TokenLosses:
    """Losses of both models, token by token, on the first ``windows`` (None: all) windows of the
    test split of ``source``; their mean is what :func:`perplexity` takes the exponential of.

    Raises UsageError, SourceError (text too short or absent), OutOfMemory and Cancelled.
    """
    if seq_len < 2 or (windows is not None and windows < 1):
        raise UsageError("At least one window of at least 2 tokens is needed; ask for more.")
    text = evaluation_windows(source, dense, tokenizer, seq_len, windows)
    total, sides = 2 * len(text.ids), []
    for name, model in (("dense", dense), ("pruned", pruned)):
        rows: list[Tensor] = []
        done = len(sides) * len(text.ids)
        stop_if(should_cancel)
        for losses in batched_losses(model, text.ids, should_cancel):
            rows.append(losses.cpu())
            done += len(losses)
            progress(Progress("evaluate", done, total, f"the {name} model reads"))
            stop_if(should_cancel)
        sides.append(torch.cat(rows).tolist())
    passages = (
        Passage(tuple(pieces(tokenizer, ids)), tuple(before), tuple(after))
        for ids, before, after in zip(text.ids.tolist(), *sides, strict=True)
    )
    return TokenLosses(source, "test", seq_len, tuple(passages))


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
