"""Attention with linear biases (ALiBi): every head has a slope of its own, which goes with it.

The model makes the biases of all dense heads for all blocks at once. A block that lost heads
remembers which ones are left, in a buffer that is saved with the weights, and picks their
biases before each run of its attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

KEPT = "kept_heads"
"""Buffer [live heads] of an attention module: the dense model's number of each head."""

Pick = Callable[[nn.Module, tuple, dict[str, Any]], tuple[tuple, dict[str, Any]]]
"""A forward pre-hook that picks the biases of ``module.kept_heads``."""


def keep_slopes(attention: nn.Module, live: int, heads: Sequence[int], pick: Pick) -> None:
    """Of the ``live`` heads of an attention module only ``heads`` stay."""
    if KEPT not in attention.state_dict():
        if len(heads) == live:
            return
        device = next(attention.parameters()).device
        numbers = torch.arange(live, device="cpu" if device.type == "meta" else device)
        attention.register_buffer(KEPT, numbers)
        attention.register_forward_pre_hook(pick, with_kwargs=True)
    kept: Tensor = attention.kept_heads
    attention.kept_heads = kept[torch.as_tensor(heads, device=kept.device)]
