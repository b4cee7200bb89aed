"""Mixtures of experts: the same layer of all experts seen as one, and which token goes where.

transformers keeps a layer of all experts of a block in one parameter [experts, out, in]. Channels
are numbered expert after expert (``unit = expert · width + channel``), and every expert of a block
keeps as many, so that the fused parameters still hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

IN_PROJ, OUT_PROJ = "gate_up_proj", "down_proj"
STEP = 8
"""Widths of an expert are multiples of this: the kernel that multiplies all experts at once
(``torch.nn.functional.grouped_mm``) wants rows of whole 16 bytes, in half precision too."""


class ExpertLayer:
    """One layer of all experts as a single matrix: the input projections have the
    rows of one expert after the other, the output projection their columns. Stands where a layer
    is expected; it has no bias."""

    bias = None

    def __init__(self, owner: nn.Module, name: str) -> None:
        self.owner, self.name = owner, name

    @property
    def stored(self) -> Tensor:
        """The parameter [experts, out, in]."""
        return getattr(self.owner, self.name)

    @property
    def weight(self) -> Tensor:
        """[experts·out, in], a view; or of the output projection [out, experts·in], a copy."""
        if self.name == IN_PROJ:
            return self.stored.flatten(0, 1)
        return self.stored.transpose(0, 1).flatten(1)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of ``weight``, which is not made for it."""
        experts, outputs, inputs = self.stored.shape
        return (experts * outputs, inputs) if self.name == IN_PROJ else (outputs, experts * inputs)

    def set(self, weight: Tensor) -> None:
        """Take ``weight`` in the form that ``weight`` has, with the same width for all experts."""
        experts = self.stored.shape[0]
        if self.name == IN_PROJ:
            stored = weight.unflatten(0, (experts, -1))
        else:
            stored = weight.unflatten(1, (experts, -1)).transpose(0, 1)
            self.owner.intermediate_dim = stored.shape[-1]
        setattr(self.owner, self.name, nn.Parameter(stored.contiguous(), requires_grad=False))


@dataclass(frozen=True)
class Mixture:
    """The experts of a block, of which ``active`` work on each token. ``module`` is called with
    the tokens [t, d], the numbers of their experts [t, active] and their shares [t, active]."""

    module: nn.Module
    active: int

    @property
    def experts(self) -> int:
        return getattr(self.module, OUT_PROJ).shape[0]

    def in_proj(self, expert: int, hidden: Tensor) -> Tensor:
        """Gate and up, side by side [t, 2·width], of one expert for tokens [t, d]."""
        return functional.linear(hidden, getattr(self.module, IN_PROJ)[expert])

    def inner(self, in_proj: Tensor) -> Tensor:
        """What the output projection reads [t, width], from gate and up side by side."""
        gate, up = in_proj.chunk(2, dim=-1)
        return self.module.act_fn(gate) * up

    def out_proj(self, expert: int, inner: Tensor) -> Tensor:
        """Output [t, d] of one expert for what :meth:`inner` gives, before its share is taken."""
        return functional.linear(inner, getattr(self.module, OUT_PROJ)[expert])

    def output(self, expert: int, hidden: Tensor) -> Tensor:
        """The same for tokens [t, d]."""
        return self.out_proj(expert, self.inner(self.in_proj(expert, hidden)))


@dataclass(frozen=True)
class Routing:
    """What entered the experts in one run: tokens [t, d], and for each of them the numbers of its
    experts and their shares, [t, active]."""

    hidden: Tensor
    experts: Tensor
    shares: Tensor

    @classmethod
    def of_call(cls, args: tuple, kwargs: dict) -> Routing:
        """From the arguments of a call of the experts' module."""
        hidden, experts, shares = (*args, *kwargs.values())
        return cls(hidden, experts, shares)

    def by_expert(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each of ``count`` experts the places of its tokens, ascending, and their shares."""
        for expert in range(count):
            tokens, place = torch.where(self.experts == expert)
            yield tokens, self.shares[tokens, place].float()
