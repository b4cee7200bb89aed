"""Products XᵀX over many tokens: half the multiplications, float64 sums."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_PANELS = 4
"""Column panels: the products below the diagonal are mirrored, 6 of 16 blocks."""
_HEAVY = 0.5
"""A token that holds more of some channel's energy is multiplied on its own."""


def gram(
    parts: Iterable[Tensor], channels: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """XᵀX [channels, channels] of the rows of ``parts`` (float32, [t, channels]), symmetric.

    Products are taken in float32 over one part (a few thousand tokens) and summed in ``dtype``.
    A massive activation, beside which float32 would round the others away, is multiplied in
    ``dtype`` with all of its token: so every entry is within 1e-6 √(G_ii G_jj) of the exact one.
    """
    total = torch.zeros(channels, channels, dtype=dtype, device=device)
    edges = [channels * k // _PANELS for k in range(_PANELS + 1)]
    panels = [slice(*pair) for pair in zip(edges, edges[1:], strict=False)]
    for part in parts if channels else ():
        heavy = _heavy(part)
        if heavy.any():
            alone = part[heavy].to(dtype)
            total.addmm_(alone.T, alone)
            part = part * ~heavy[:, None]
        for panel in panels:
            total[panel, panel.start :] += part[:, panel].T @ part[:, panel.start :]
    for panel in panels:
        total[panel.stop :, panel] = total[panel, panel.stop :].T
    return total


def _heavy(part: Tensor) -> Tensor:
    """Which rows [t] of ``part`` hold the larger part of some channel."""
    squares = part.square()
    energy = squares.sum(0).clamp_min(torch.finfo(part.dtype).tiny)
    return squares.div_(energy).amax(1) > _HEAVY
