"""Where each head looks in one sentence: attention maps of every block, for looking at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.data.sentence import sentence_ids
from pruning.models.execution.blockwise import attention_implementation, block_contexts, embed
from pruning.models.execution.offload import device_of, resident
from pruning.models.loading.loaded import LoadedModel

LONGEST = 48
"""Tokens of the sentence that are looked at: more cannot be told apart on a map."""


@dataclass(frozen=True)
class AttentionPatterns:
    """``tokens``: the pieces of the sentence; ``maps``: one array [heads, s, s] per block, row =
    the token that looks, column = the token looked at; each row sums to 1."""

    tokens: tuple[str, ...]
    maps: tuple[np.ndarray, ...]


@torch.no_grad()
def attention_patterns(
    loaded: LoadedModel,
    sentence: str,
    *,
    longest: int = LONGEST,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> AttentionPatterns:
    """The attention maps of all heads on the first ``longest`` tokens of ``sentence``.

    Eager attention is on only while this runs, block by block. Raises SourceError without a
    tokenizer or for a token that the model does not know, UsageError for an empty sentence,
    Cancelled.
    """
    ids = sentence_ids(sentence, loaded.tokenizer, loaded.model)[:longest]
    tokens = tuple(loaded.tokenizer.decode([token]) for token in ids)
    maps = []
    total = len(loaded.adapter.blocks(loaded.model))
    # closed at once when cancelled: the model gets its own attention kernel back
    with closing(_maps(loaded, torch.tensor([ids]))) as blocks:
        for block, block_maps in enumerate(blocks):
            stop_if(should_cancel)
            maps.append(block_maps)
            progress(Progress("patterns", block + 1, total, f"Looked at block {block}"))
    return AttentionPatterns(tokens, tuple(maps))


def _maps(loaded: LoadedModel, ids: Tensor) -> Iterator[np.ndarray]:
    """Maps [heads, s, s] of one block after the other for ``ids`` [1, s]."""
    model, adapter = loaded.model, loaded.adapter
    with attention_implementation(model, "eager"):
        contexts = block_contexts(model, adapter, ids.shape[1])
        hidden = embed(model, adapter, ids)
        for block, context in zip(adapter.blocks(model), contexts, strict=True):
            hidden = hidden.to(device_of(block))
            with resident(block):
                added, probabilities = adapter.run_attention(block, hidden, context)
                leaving = hidden + added
                reads = hidden if adapter.parallel(block) else leaving
                hidden = leaving + adapter.run_ffn(block, reads)
            yield probabilities[0].float().cpu().numpy()
