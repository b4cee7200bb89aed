"""Jensen-Shannon divergence between the attention patterns of a block's heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pruning.distributed.ranks import Ranks
from pruning.measure.moments import Float64Queue
from pruning.models.limits import PAIR_ENTRIES
from pruning.utils.precision import sum_float64, zeros_float64

_ENTRIES = {True: 2**18, False: PAIR_ENTRIES}
"""Entries of patterns at once: on the CPU what its caches hold, elsewhere what fills the device."""


class DivergenceSum:
    """Accumulates ``mean over samples and query positions of JS(P_i || P_j)``, in nats.

    Uses ``JS = H((P_i+P_j)/2) - (H(P_i)+H(P_j))/2``. A few samples at a time on the CPU, a few
    entries of their patterns at a time on other devices, so the working set is a few times what
    _ENTRIES says, never heads × heads × s × s.
    """

    def __init__(self, heads: int) -> None:
        self.heads, self.rows = heads, 0
        self._float64 = Float64Queue()
        self._sums = zeros_float64(heads * (heads + 1) // 2)
        """Entropies of the heads, then of the mixtures of heads i < j."""

    def add(self, probabilities: Tensor) -> None:
        """Add attention probabilities [n, heads, s, s] (causal)."""
        n, heads, seq_len, _ = probabilities.shape
        row, column = torch.tril_indices(seq_len, seq_len, device=probabilities.device)
        lower = row * seq_len + column  # what lies above the diagonal is zero
        on_cpu = probabilities.device.type == "cpu"
        size = max(1, _ENTRIES[on_cpu] // (heads * len(lower)))
        for part in probabilities.split(size):
            patterns = part.flatten(2).index_select(2, lower)
            if on_cpu:
                self._summed(_by_head(patterns.float()))
            else:
                self._add_all_pairs(patterns.transpose(0, 1).flatten(1).float())
        self.rows += n * seq_len

    def _add_all_pairs(self, patterns: Tensor) -> None:
        """Add patterns [heads, entries] of several samples, every head with every other at once:
        few large steps, and none that waits for the device."""
        columns = max(1, _ENTRIES[False] // len(self._sums))
        for halves in (patterns * 0.5).split(columns, dim=1):
            both = halves.new_empty(len(self._sums), halves.shape[1])
            torch.add(halves, halves, out=both[: self.heads])
            start = self.heads
            for i in range(self.heads - 1):
                end = start + self.heads - 1 - i
                torch.add(halves[i + 1 :], halves[i], out=both[start:end])
                start = end
            self._float64.bring(_entropies(both), self._summed)

    def _summed(self, sums: Tensor) -> None:
        self._sums = self._sums.to(sums.device) + sums

    def gather(self, ranks: Ranks) -> None:
        """From now on these are the sums over the patterns of all ``ranks``."""
        self._float64.finish()
        self._sums = ranks.total(self._sums)
        self.rows = int(ranks.total(torch.tensor(self.rows)))

    def result(self) -> Tensor:
        """Divergence [heads, heads], float64: symmetric, zero diagonal, within [0, ln 2]."""
        self._float64.finish()
        sums = self._sums.cpu()
        entropy, mixture = sums[: self.heads], zeros_float64(self.heads, self.heads)
        mixture[*torch.triu_indices(self.heads, self.heads, 1)] = sums[self.heads :]
        half = 0.5 * (entropy[:, None] + entropy[None, :])
        upper = ((mixture - half) / max(self.rows, 1)).triu(1).clamp(0.0, math.log(2.0))
        return upper + upper.T


def _by_head(patterns: Tensor) -> Tensor:
    """Sums of entropies of patterns [n, heads, entries] and of mixtures of heads i < j, float64;
    one head with the rest at a time, which stay in the processor's caches."""
    sums = [_entropies(patterns.clone())]
    for i in range(patterns.shape[1] - 1):
        mixed = patterns[:, i + 1 :] + patterns[:, i : i + 1]
        sums.append(_entropies(mixed.mul_(0.5)))
    return sum_float64(torch.cat(sums, dim=1), 0)


def _entropies(patterns: Tensor) -> Tensor:
    """Sum of entropies [...] of patterns [..., entries], which are used up."""
    if patterns.device.type == "cuda":
        return torch.special.entr(patterns).sum(-1)
    # that takes eight times as long on a CPU: it is not vectorised
    logs = patterns.clamp_min(torch.finfo(patterns.dtype).tiny).log_()
    return patterns.mul_(logs).sum(-1).neg_()
