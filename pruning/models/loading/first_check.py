"""The first work on a device: whether it runs there, and with the CPU's results.

A driver that does not fit, or a device that lacks an operation, shows here before a model is
loaded, and not in the middle of a run.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from pruning.utils.errors import one_line
from pruning.utils.precision import to_float64

_TOKENS, _WIDTH, _HEADS = 12, 16, 2
_NAMES = ("forward pass", "divergence", "solve")
_APART = 1e-2
"""Of the largest value: what a device may be off, with matrix products in TF32 too."""


@cache
def first_check(device: torch.device) -> str | None:
    """What is wrong with ``device``, as the end of a sentence; None: nothing. Done once per
    process and device."""
    try:
        found = [part.cpu() for part in _work(device)]
    except (RuntimeError, TypeError, NotImplementedError, AssertionError) as error:
        return f"fails at a small forward pass, divergence and solve ({one_line(error, 120)})"
    expected = _work(torch.device("cpu"))
    for name, one, other in zip(_NAMES, found, expected, strict=True):
        largest = other.abs().max().item()
        if not (one - other).abs().max().item() <= _APART * largest:
            return f"computes a small {name} otherwise than the CPU"
    return None


def _work(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of an attention module with an FFN, the entropies of its maps, and the solution of
    normal equations of the outputs, as the engine finds them."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, _WIDTH, _WIDTH, generator=generator) / _WIDTH**0.5
    query, key, value, up, down = weights.to(device)
    ids = torch.arange(_TOKENS, device=device) % _WIDTH
    hidden = functional.layer_norm(functional.embedding(ids, weights[0].to(device)), (_WIDTH,))
    q, k, v = (
        (hidden @ w.T).unflatten(1, (_HEADS, -1)).transpose(0, 1) for w in (query, key, value)
    )
    mixed = functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    hidden = hidden + mixed.transpose(0, 1).flatten(1)
    hidden = hidden + functional.silu(hidden @ up.T) @ down.T

    above = torch.ones(_TOKENS, _TOKENS, dtype=torch.bool, device=device).triu(1)
    maps = (q @ k.transpose(1, 2)).masked_fill(above, float("-inf")).softmax(-1)
    row, column = torch.tril_indices(_TOKENS, _TOKENS, device=device)
    lower = maps.flatten(1).index_select(1, row * _TOKENS + column)
    tiny = torch.finfo(lower.dtype).tiny
    entropies = -(lower * lower.clamp_min(tiny).log()).sum(1)

    gram, cross = to_float64(hidden.T @ hidden), to_float64(hidden.T @ ids.float()[:, None])
    gram = gram + gram.diagonal().mean() * torch.eye(_WIDTH, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.item():
        raise RuntimeError("a positive matrix has no factor")
    solution = torch.cholesky_solve(cross, factor)
    whitened = torch.linalg.solve_triangular(factor.to(hidden), hidden.T, upper=False)
    return hidden, entropies, torch.cat([solution.flatten().to(whitened), whitened.flatten()])
