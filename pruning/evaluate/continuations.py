"""What a pruned model writes, beside the dense one: repetition and agreement.

Perplexity and multiple choice stay good long after text does not; these two say when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.models.execution.blockwise import batched_logits
from pruning.models.execution.kv_cache import CachedReader
from pruning.utils.errors import SourceError, UsageError

NGRAM = 4


@dataclass(frozen=True)
class Continuations:
    """Greedy continuations of ``prompts`` prompts by ``new_tokens`` tokens each.

    ``agreement``: share of the tokens of the dense model's continuations that the model ranks first
    behind the same tokens; 1 for the dense model itself. ``repeated``, ``dense_repeated``: share of
    the 4-grams of a continuation that stood in it before, mean over prompts (Welleck et al.,
    ICLR 2020, seq-rep-4).
    """

    agreement: float
    repeated: float
    dense_repeated: float
    prompts: int
    new_tokens: int

    def protocol(self) -> str:
        """The sentence that belongs beside the numbers."""
        return (
            f"Greedy continuations of {self.prompts} prompts by {self.new_tokens} tokens; "
            f"repeated: {NGRAM}-grams that stood in the same continuation before."
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "protocol": self.protocol()}


@cache
def prompts() -> tuple[str, ...]:
    """The twenty prompts, beginnings of everyday sentences."""
    text = (Path(__file__).parent / "prompts.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


@torch.inference_mode()
def compare_continuations(
    dense: nn.Module,
    model: nn.Module,
    tokenizer: Any,
    *,
    texts: Sequence[str] | None = None,
    new_tokens: int = 32,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Continuations:
    """Let both models continue ``texts`` (None: :func:`prompts`) greedily.

    Writing does not end at an end-of-text token, so that every continuation has one length.
    Raises UsageError for fewer tokens than a 4-gram needs twice, SourceError without a tokenizer,
    Cancelled.
    """
    texts = prompts() if texts is None else texts
    if new_tokens <= NGRAM:
        raise UsageError(f"{new_tokens} new tokens hold no two 4-grams; ask for more.")
    if tokenizer is None:
        raise SourceError("The model has no tokenizer, so it cannot read a prompt.")
    agreed, repeated, dense_repeated = 0, 0.0, 0.0
    for done, text in enumerate(texts, start=1):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        theirs = _continued(dense, ids, new_tokens, should_cancel)
        own = _continued(model, ids, new_tokens, should_cancel)
        whole = torch.cat([ids, theirs], dim=1)
        ((_, logits),) = batched_logits(model, whole[:, :-1], 1, should_cancel)
        first = logits[:, ids.shape[1] - 1 :].argmax(-1).cpu()
        agreed += int((first == theirs).sum())
        repeated += repetition(own[0].tolist())
        dense_repeated += repetition(theirs[0].tolist())
        progress(Progress("continue", done, len(texts), f"{done} of {len(texts)} prompts"))
    count = len(texts)
    return Continuations(
        agreement=agreed / (count * new_tokens),
        repeated=repeated / count,
        dense_repeated=dense_repeated / count,
        prompts=count,
        new_tokens=new_tokens,
    )


def repetition(tokens: Sequence[int], size: int = NGRAM) -> float:
    """Share of the ``size``-grams of ``tokens`` that are there before: 1 - distinct / all."""
    grams = [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]
    return 1.0 - len(set(grams)) / len(grams)


def _continued(
    model: nn.Module, ids: torch.Tensor, new_tokens: int, should_cancel: CancelCheck
) -> torch.Tensor:
    """The next ``new_tokens`` tokens [1, new_tokens] behind ``ids`` [1, s], on the CPU."""
    reader, written = CachedReader(model), []
    logits = reader.read(ids.to(model.device), logits_to_keep=1)
    for _ in range(new_tokens):
        stop_if(should_cancel)
        written.append(logits[:, -1:].argmax(-1))
        if len(written) < new_tokens:
            logits = reader.read(written[-1])
    return torch.cat(written, dim=1).cpu()
