"""Text that the model writes itself: data-free, yet close to what it expects."""

from __future__ import annotations

from pruning.corpora.base import CORPORA, TokenCorpus
from pruning.corpora.writing import write_on


def draw(model, tokenizer, samples: int, seq_len: int, seed: int):
    """Ids [samples, seq_len], int64: each window starts at a random token and is sampled from
    the model at temperature 1; end-of-text is not allowed to end it early."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    high = min(model.config.vocab_size, len(tokenizer)) if tokenizer else model.config.vocab_size
    starts = torch.randint(0, high, (samples, 1), generator=generator)
    return write_on(model, starts, seq_len, generator)


CORPORA.add(
    "self",
    TokenCorpus(draw),
    title="Self-generated",
    summary="The model writes its own calibration text; needs no data.",
    source="Headroom; data-free setting of Li, Dong, Lei, CPAL 2025",
)
