"""Text that the model writes itself: data-free, yet close to what it expects."""

from __future__ import annotations

from pruning.data.bos import adds_bos
from pruning.data.corpora.base import CORPORA, TokenCorpus

_BATCH = 16


def written(model, tokenizer, samples: int, seq_len: int, seed: int):
    """Ids [samples, seq_len], int64: each window starts at a random token and is sampled from
    the model at temperature 1; end-of-text is not allowed to end it early. Where the tokenizer
    begins texts with a BOS token the model reads one first, which is not among the ids."""
    import torch

    from pruning.models.execution.kv_cache import CachedReader
    from pruning.models.execution.sampling import sample

    generator = torch.Generator().manual_seed(seed)
    high = min(model.config.vocab_size, len(tokenizer)) if tokenizer else model.config.vocab_size
    rows = []
    with torch.inference_mode():
        for start in range(0, samples, _BATCH):
            count = min(_BATCH, samples - start)
            ids = torch.randint(0, high, (count, 1), generator=generator)
            reader, step = CachedReader(model), ids
            if adds_bos(tokenizer):
                step = torch.nn.functional.pad(ids, (1, 0), value=tokenizer.bos_token_id)
            for _ in range(seq_len - 1):
                logits = reader.read(step.to(model.device), logits_to_keep=1)
                step = sample(logits[:, -1].float().softmax(-1), 1, generator)
                ids = torch.cat([ids, step], dim=1)
            rows.append(ids)
    return torch.cat(rows)


CORPORA.add(
    "self",
    TokenCorpus(written),
    title="Self-generated",
    summary="The model writes its own calibration text; needs no data.",
    source="Headroom; data-free setting of Li, Dong, Lei, CPAL 2025",
)
