"""What one module reads and gives while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, PrunableModule
from pruning.adapters.experts import Routing
from pruning.models.execution.forward import replaced_forward


class _Stopped(Exception):
    """Ends a forward pass once the wanted tensor has been seen."""


@dataclass(frozen=True)
class Part:
    """What a module did with its tokens, or one expert with the tokens [t] routed to it:
    ``in_proj`` name -> [t, rows], ``out_proj_input`` [t, m], the places of the ``tokens`` in the
    run, ascending (None: all of them), and their ``shares`` [t] (None: no expert)."""

    in_proj: Mapping[str, Tensor]
    out_proj_input: Tensor
    tokens: Tensor | None = None
    shares: Tensor | None = None


class Tap:
    """Records, during one run of ``module``, what its layers read and give.

    ``in_proj_input`` [n, s, d]; ``in_proj`` name -> [n, s, rows]; ``out_proj_input`` [n, s, m]. A
    mixture of experts is recorded by its ``routing`` and, unless the run is stopped, by the output
    of each expert for its tokens (``expert_outputs`` [t, d], before the share is taken): the
    experts then work one after the other, for the kernel that runs all of them at once does not
    show their outputs. :meth:`parts` gives the rest. With ``stop_at_out_proj`` the run ends as
    soon as the out_proj input, or the routing, is known.
    """

    def __init__(self, module: PrunableModule, stop_at_out_proj: bool = False) -> None:
        self.module = module
        self.stop_at_out_proj = stop_at_out_proj
        self.in_proj: dict[str, Tensor] = {}
        self.in_proj_input: Tensor | None = None
        self.out_proj_input: Tensor | None = None
        self.routing: Routing | None = None
        self.expert_outputs: list[Tensor] = []
        self._parts: list[Part] | None = None
        self._hooks = ExitStack()

    def __enter__(self) -> Tap:
        module, enter = self.module, self._hooks
        if module.mixture:
            enter.enter_context(replaced_forward(module.mixture.module, self._experts))
            return self
        for layer in module.in_proj_layers():
            enter.callback(layer.register_forward_hook(self._after_in_proj).remove)
        enter.callback(module.out_proj.register_forward_pre_hook(self._before_out_proj).remove)
        return self

    def __exit__(self, kind, error, trace) -> bool:
        self._hooks.close()
        return kind is _Stopped

    def _after_in_proj(self, layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.in_proj_input = inputs[0]
        for name, projection in self.module.in_proj.items():
            if projection.layer is layer:
                rows = projection.rows
                whole = len(rows) == output.shape[-1]
                self.in_proj[name] = output if whole else output[..., rows.to(output.device)]

    def _before_out_proj(self, _layer: nn.Module, inputs: tuple) -> None:
        self.out_proj_input = inputs[0]
        if self.stop_at_out_proj:
            raise _Stopped

    def _experts(self, *args: Any, **kwargs: Any) -> Tensor:
        """The experts' forward pass, [t, d]."""
        mixture, self.routing = self.module.mixture, Routing.of_call(args, kwargs)
        if self.stop_at_out_proj:
            raise _Stopped
        hidden = self.routing.hidden
        total = torch.zeros_like(hidden, dtype=torch.float32)
        for expert, part in enumerate(self.parts()):
            output = mixture.out_proj(expert, part.out_proj_input)
            self.expert_outputs.append(output)
            total.index_add_(0, part.tokens, output.float() * part.shares[:, None])
        return total.to(hidden.dtype)

    def parts(self) -> list[Part]:
        """The whole module, or the experts in order, over all tokens of the run."""
        if self._parts is None:
            self._parts = list(self._split())
        return self._parts

    def _split(self) -> Iterator[Part]:
        mixture = self.module.mixture
        if mixture is None:
            in_proj = {name: output.flatten(0, -2) for name, output in self.in_proj.items()}
            yield Part(in_proj, self.out_proj_input.flatten(0, -2))
            return
        for expert, (tokens, shares) in enumerate(self.routing.by_expert(mixture.experts)):
            yield expert_part(self.module, expert, self.routing.hidden[tokens], tokens, shares)


def expert_part(
    module: PrunableModule,
    expert: int,
    hidden: Tensor,
    tokens: Tensor | None = None,
    shares: Tensor | None = None,
) -> Part:
    """What one expert of a mixture does with ``hidden`` [t, d]."""
    in_proj = module.mixture.in_proj(expert, hidden)
    gate, up = in_proj.chunk(2, dim=-1)
    return Part({"up": up, "gate": gate}, module.mixture.inner(in_proj), tokens, shares)


def run_tapped(
    adapter: ModelAdapter,
    block: nn.Module,
    module: PrunableModule,
    hidden: Tensor,
    context: Mapping[str, Any],
) -> Tap:
    """Run one module on ``hidden`` [n, s, d] up to its out_proj input; returns the record."""
    with Tap(module, stop_at_out_proj=True) as tap:
        adapter.run(block, module.kind, hidden, context)
    return tap


def run_with_output(
    adapter: ModelAdapter,
    block: nn.Module,
    module: PrunableModule,
    hidden: Tensor,
    context: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """Contribution of a module to the residual stream [n, s, d], and its out_proj output
    [n, s, d], or [n·s, d] of a mixture of experts.

    They differ in families with a norm after the module or a shared expert beside the others.
    """
    outputs: list[Tensor] = []
    layer = module.mixture.module if module.mixture else module.out_proj
    handle = layer.register_forward_hook(lambda _layer, _inputs, out: outputs.append(out))
    try:
        added = adapter.run(block, module.kind, hidden, context)
    finally:
        handle.remove()
    return added, outputs[0]
