"""Jensen-Shannon divergence between the attention patterns of a block's heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class DivergenceSum:
    """Accumulates ``mean over samples and query positions of JS(P_i || P_j)``, in nats.

    Uses ``JS = H((P_i+P_j)/2) - (H(P_i)+H(P_j))/2``. Only one head is compared with the rest
    at a time, so the working set is [n, heads, s(s+1)/2], never heads × heads × s × s.
    """

    def __init__(self, heads: int) -> None:
        self.entropy = torch.zeros(heads, dtype=torch.float64)
        self.mixture = torch.zeros(heads, heads, dtype=torch.float64)
        self.rows = 0

    def add(self, probabilities: Tensor) -> None:
        """Add attention probabilities [n, heads, s, s] (causal)."""
        n, heads, seq_len, _ = probabilities.shape
        lower = torch.ones(seq_len, seq_len, dtype=torch.bool, device=probabilities.device).tril()
        patterns = probabilities.float()[:, :, lower]  # what lies above the diagonal is zero
        self.entropy += _entropy(patterns).cpu()
        for i in range(heads - 1):
            mixed = patterns[:, i + 1 :] + patterns[:, i : i + 1]
            self.mixture[i, i + 1 :] += _entropy(mixed.mul_(0.5)).cpu()
        self.rows += n * seq_len

    def result(self) -> Tensor:
        """Divergence [heads, heads], float64: symmetric, zero diagonal, within [0, ln 2]."""
        half = 0.5 * (self.entropy[:, None] + self.entropy[None, :])
        upper = ((self.mixture - half) / max(self.rows, 1)).triu(1).clamp(0.0, math.log(2.0))
        return upper + upper.T


def _entropy(patterns: Tensor) -> Tensor:
    """Sum of entropies per head [heads] of patterns [n, heads, entries]."""
    return torch.special.entr(patterns).sum(dim=2).sum(dim=0, dtype=torch.float64)
