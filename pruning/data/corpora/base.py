"""What a corpus is; importing needs no torch.

Add one: a file in this folder with a call of ``CORPORA.add("name", TextCorpus(read), title=...,
summary=..., source=...)``, or with a :class:`TokenCorpus`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pruning import registries
from pruning.utils.registry import Registry

Split = Literal["train", "test"]


@dataclass(frozen=True)
class TextCorpus:
    """``read(split)`` gives the whole text of a split, rows joined as the field does."""

    read: Callable[[Split], str]


@dataclass(frozen=True)
class TokenCorpus:
    """``sample(model, tokenizer, samples, seq_len, seed)`` gives token ids [samples, seq_len].
    ``language``: one token follows from those before it, so that a model can be judged by how well
    it foretells them."""

    sample: Callable[[Any, Any, int, int, int], Any]
    language: bool = True


Corpus = TextCorpus | TokenCorpus

CORPORA: Registry[Corpus] = registries.CORPORA
