"""Tokens sampled from what a model expects."""

from __future__ import annotations

import torch
from torch import Tensor

from pruning.utils.errors import Unsupported


def sample(probs: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Token ids [t, draws] (CPU), sampled with replacement by the probabilities ``probs``
    [t, vocabulary] on any device. Raises Unsupported for probabilities that are not numbers.

    Summed and sampled on the CPU with its ``generator``, so that a seed means the same twice and
    on every device. A token is where a uniform number falls among the summed probabilities;
    ``torch.multinomial`` takes several times as long.
    """
    summed = probs.float().cpu().cumsum(-1)
    if not summed[:, -1].isfinite().all():
        raise Unsupported(
            "The model's outputs are not numbers; load it in bfloat16 or float32, or check its "
            "weights."
        )
    chance = torch.rand(len(probs), draws, generator=generator)
    return torch.searchsorted(summed, chance * summed[:, -1:], right=True)
