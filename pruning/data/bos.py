"""The beginning-of-sequence (BOS) token: which tokenizers add one, and which windows get it."""

from __future__ import annotations

from typing import Any, get_args

from pruning.artifacts.comparison import Leading
from pruning.artifacts.rules import Bos
from pruning.utils.errors import UsageError
from pruning.utils.registry import unknown_name


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its BOS token before every text."""
    if tokenizer is None or tokenizer.bos_token_id is None:
        return False
    return list(tokenizer("", verbose=False)["input_ids"][:1]) == [tokenizer.bos_token_id]


def leading(bos: Bos, tokenizer: Any) -> Leading:
    """What ``bos`` comes to: ``auto`` is ``every`` for tokenizers that add one (as llama.cpp and
    the ``evaluate`` library have it), else ``none``. Raises UsageError for an unknown word, and
    where there is no BOS token to lead with."""
    if bos not in get_args(Bos):
        raise unknown_name("bos", bos, get_args(Bos))
    if bos == "auto":
        return "every" if adds_bos(tokenizer) else "none"
    if bos != "none" and (tokenizer is None or tokenizer.bos_token_id is None):
        raise UsageError("The tokenizer has no BOS token to begin with; choose the bos 'none'.")
    return bos
