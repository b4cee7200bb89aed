"""Units of a block switched off for a while; nothing of it is left on the model afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, PrunableModule
from pruning.adapters.experts import OUT_PROJ, Mixture, Routing
from pruning.adapters.projection import layer_owner
from pruning.models.execution.forward import replaced_forward
from pruning.surgery.cut import expand


@dataclass(frozen=True)
class BlockMask:
    """What is off in one block: ``heads``, ``channels`` of the FFN (numbered expert after expert in
    a mixture), or the ``whole`` block, which then passes on what enters it."""

    heads: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    whole: bool = False


Masks = Mapping[int, BlockMask]
"""Masks by the number of their block."""


@contextmanager
def masked(adapter: ModelAdapter, block: nn.Module, mask: BlockMask) -> Iterator[None]:
    """Inside the ``with`` statement the heads and channels of ``mask`` hand zeros to the output
    projections of ``block``, as if they had been cut: its bias, and whatever norm follows, stay."""
    with ExitStack() as stack:
        if mask.heads:
            stack.enter_context(_hidden(adapter.attention(block), mask.heads))
        if mask.channels:
            stack.enter_context(_hidden(adapter.ffn(block), mask.channels))
        yield


def _hidden(module: PrunableModule, units: tuple[int, ...]) -> AbstractContextManager[None]:
    if module.mixture is None:
        return _inputs_hidden(module, units)
    return _experts_hidden(module.mixture, units)


@contextmanager
def _inputs_hidden(module: PrunableModule, units: tuple[int, ...]) -> Iterator[None]:
    columns = expand(units, module.unit_width)

    def silence(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0].index_fill(-1, columns.to(inputs[0].device), 0.0)
        return (hidden, *inputs[1:])

    handle = layer_owner(module.out_proj).register_forward_pre_hook(silence)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _experts_hidden(mixture: Mixture, units: tuple[int, ...]) -> Iterator[None]:
    """The experts work one after the other: the kernel that runs all at once shows no inputs."""
    down = getattr(mixture.module, OUT_PROJ)
    off = torch.zeros(mixture.experts, down.shape[-1], dtype=torch.bool)
    off.view(-1)[list(units)] = True

    def run(*args: Any, **kwargs: Any) -> Tensor:
        routing = Routing.of_call(args, kwargs)
        hidden = routing.hidden
        total = torch.zeros_like(hidden, dtype=torch.float32)
        for expert, (tokens, shares) in enumerate(routing.by_expert(mixture.experts)):
            inner = mixture.inner(mixture.in_proj(expert, hidden[tokens]))
            inner = inner.masked_fill(off[expert].to(inner.device), 0.0)
            output = mixture.out_proj(expert, inner).float()
            total.index_add_(0, tokens, output * shares[:, None])
        return total.to(hidden.dtype)

    with replaced_forward(mixture.module, run):
        yield
