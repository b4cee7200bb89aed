"""One sentence that somebody typed, as tokens."""

from __future__ import annotations

from typing import Any

from pruning.data.windows import check_tokens
from pruning.utils.errors import SourceError, UsageError


def sentence_ids(sentence: str, tokenizer: Any, model: Any) -> list[int]:
    """Token ids of ``sentence`` as the tokenizer gives them, its BOS token included. Raises
    SourceError without a tokenizer or for a token that the model does not know, UsageError for an
    empty sentence."""
    import torch

    if tokenizer is None:
        raise SourceError("The model has no tokenizer, so it cannot read a sentence.")
    ids: list[int] = tokenizer(sentence)["input_ids"] if sentence.strip() else []
    if not ids:
        raise UsageError("The sentence is empty; type some text.")
    check_tokens("The sentence", torch.tensor(ids), tokenizer, model)
    return ids
