"""Random token ids: the paper's data-free calibration."""

from __future__ import annotations

from pruning.data.corpora.base import CORPORA, TokenCorpus


def uniform(model, tokenizer, samples: int, seq_len: int, seed: int):
    """Uniform ids of the vocabulary [samples, seq_len], int64."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    high = min(model.config.vocab_size, len(tokenizer)) if tokenizer else model.config.vocab_size
    return torch.randint(0, high, (samples, seq_len), generator=generator)


CORPORA.add(
    "random",
    TokenCorpus(uniform, language=False),
    title="Random tokens",
    summary="Uniformly sampled token ids; needs no text at all.",
    source="Li, Dong, Lei, CPAL 2025, section 3",
)
