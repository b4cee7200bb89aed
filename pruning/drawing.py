"""Tokens drawn from what a model expects."""

from __future__ import annotations

import torch
from torch import Tensor


def drawn(odds: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Token ids [t, draws] (CPU), drawn with replacement by the probabilities ``odds``
    [t, vocabulary] on any device.

    Chance comes from the CPU's ``generator``, so that a seed means the same on every device. A
    token is where a uniform number falls among the summed odds; ``torch.multinomial`` takes
    several times as long on a CPU.
    """
    summed = odds.float().cumsum(-1)
    chance = torch.rand(len(odds), draws, generator=generator).to(summed.device)
    return torch.searchsorted(summed, chance * summed[:, -1:], right=True).cpu()
