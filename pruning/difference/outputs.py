"""The same text read by two models, block by block side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pruning.artifacts.difference import BlockOutput
from pruning.evaluate.perplexity import windows_per_batch
from pruning.models.execution.blockwise import TOKENS_PER_BATCH, Frame, embed, run_block
from pruning.models.loading.loaded import LoadedModel


class Reader:
    """One model that reads windows ``ids`` [n, s]; its blocks run one at a time, when they are on
    their device. Hidden states wait on the CPU."""

    def __init__(self, loaded: LoadedModel, ids: Tensor) -> None:
        size = min(windows_per_batch(loaded.model, ids.shape[1]), TOKENS_PER_BATCH // ids.shape[1])
        self._parts = ids.split(max(1, size))
        self._blocks = loaded.adapter.blocks(loaded.model)
        self._frames = {
            len(part): Frame(loaded.model, loaded.adapter, part)
            for part in (self._parts[0], self._parts[-1])
        }
        self._streams = [embed(loaded.model, loaded.adapter, part) for part in self._parts]

    def run(self, index: int) -> list[Tensor]:
        """The residual stream [n, s, d] behind block ``index``, a part of the windows each."""
        for place, hidden in enumerate(self._streams):
            context = self._frames[len(hidden)].contexts[index]
            self._streams[place] = run_block(self._blocks[index], hidden, context)
        return self._streams

    def logits(self) -> Iterator[Tensor]:
        """After the last block: logits [n, s, vocabulary] of a part of the windows each."""
        for part, hidden in zip(self._parts, self._streams, strict=True):
            yield self._frames[len(part)].logits(part, hidden)


@dataclass
class _Mean:
    """A mean over tokens, put together part by part."""

    total: float = 0.0
    count: int = 0

    def add(self, values: Tensor) -> None:
        self.total += values.sum().item()
        self.count += values.numel()

    @property
    def value(self) -> float:
        return self.total / self.count


@torch.no_grad()
def compare_block(first: Reader, second: Reader, index: int) -> BlockOutput:
    """Run block ``index`` of both, which is on its device, and compare what leaves it."""
    error, cosine = _Mean(), _Mean()
    for one, other in zip(first.run(index), second.run(index), strict=True):
        one, other = one.float(), other.float()
        error.add((other - one).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-12))
        cosine.add(functional.cosine_similarity(one, other, dim=-1))
    return BlockOutput(error.value, cosine.value)


@torch.no_grad()
def compare_predictions(first: Reader, second: Reader) -> tuple[float, float]:
    """After the last block: mean divergence of the second's next-token distribution from the
    first's (nats), and the share of tokens where both have the same first choice."""
    divergence, agreement = _Mean(), _Mean()
    for one, other in zip(first.logits(), second.logits(), strict=True):
        one, other = one.float().log_softmax(-1), other.to(one.device).float().log_softmax(-1)
        divergence.add((one.exp() * (one - other)).sum(-1))
        agreement.add((one.argmax(-1) == other.argmax(-1)).float())
    return divergence.value, agreement.value
