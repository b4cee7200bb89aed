"""Jensen-Shannon divergence between the attention patterns of a block's heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pruning.distributed.ranks import Ranks
from pruning.utils.precision import sum_float64, zeros_float64

_ENTRIES = {True: 2**18, False: 2**26}
"""Entries of patterns at once: on the CPU what its caches hold, elsewhere what fills the device."""


class DivergenceSum:
    """Accumulates ``mean over samples and query positions of JS(P_i || P_j)``, in nats.

    Uses ``JS = H((P_i+P_j)/2) - (H(P_i)+H(P_j))/2``. Only one head is compared with the rest
    at a time, and a few samples at a time, so the working set is a few times
    [n, heads, s(s+1)/2], never heads × heads × s × s.
    """

    def __init__(self, heads: int) -> None:
        self.entropy = zeros_float64(heads)
        self.mixture = zeros_float64(heads, heads)
        self.rows = 0

    def add(self, probabilities: Tensor) -> None:
        """Add attention probabilities [n, heads, s, s] (causal)."""
        n, heads, seq_len, _ = probabilities.shape
        row, column = torch.tril_indices(seq_len, seq_len, device=probabilities.device)
        lower = row * seq_len + column  # what lies above the diagonal is zero
        size = max(1, _ENTRIES[probabilities.device.type == "cpu"] // (heads * len(lower)))
        for part in probabilities.split(size):
            self._add(part.flatten(2).index_select(2, lower).float())
        self.rows += n * seq_len

    def _add(self, patterns: Tensor) -> None:
        """Add patterns [n, heads, entries]."""
        n, heads, _ = patterns.shape
        entropies = [_entropies(patterns.clone())]
        for i in range(heads - 1):
            mixed = patterns[:, i + 1 :] + patterns[:, i : i + 1]
            entropies.append(_entropies(mixed.mul_(0.5)))
        # one copy, for each waits for the device
        together = torch.cat([part.flatten() for part in entropies]).cpu()
        parts = together.split([part.numel() for part in entropies])
        entropy, *mixtures = (sum_float64(part.view(n, -1), 0) for part in parts)
        self.entropy += entropy
        for i, mixture in enumerate(mixtures):
            self.mixture[i, i + 1 :] += mixture

    def gather(self, ranks: Ranks) -> None:
        """From now on these are the sums over the patterns of all ``ranks``."""
        self.entropy, self.mixture = ranks.total(self.entropy), ranks.total(self.mixture)
        self.rows = int(ranks.total(torch.tensor(self.rows)))

    def result(self) -> Tensor:
        """Divergence [heads, heads], float64: symmetric, zero diagonal, within [0, ln 2]."""
        half = 0.5 * (self.entropy[:, None] + self.entropy[None, :])
        upper = ((self.mixture - half) / max(self.rows, 1)).triu(1).clamp(0.0, math.log(2.0))
        return upper + upper.T


def _entropies(patterns: Tensor) -> Tensor:
    """Sum of entropies [n, heads] of patterns [n, heads, entries], which are used up."""
    # torch.special.entr takes eight times as long on a CPU: it is not vectorised
    logs = patterns.clamp_min(torch.finfo(patterns.dtype).tiny).log_()
    return patterns.mul_(logs).sum(dim=2).neg_()
