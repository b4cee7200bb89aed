"""Runs a model block by block over calibration windows; only the residual stream is kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, PrunableModule, adapter_for
from pruning.adapters.experts import Routing
from pruning.artifacts.events import CancelCheck, never, stop_if
from pruning.models.execution.offload import device_of, is_offloaded, moved, resident

TOKENS_PER_BATCH = 2048
_NOT_CONTEXT = {"hidden_states", "cache", "past_key_values", "layer_past", "use_cache", "kwargs"}


class _Stop(Exception):
    """Ends a forward pass once the wanted tensor has been seen."""


@contextmanager
def attention_implementation(model: nn.Module, name: str) -> Iterator[None]:
    """Run ``model`` with another attention kernel (eager gives probabilities), then restore."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def batches(samples: int, seq_len: int) -> list[slice]:
    """Slices of samples that hold about TOKENS_PER_BATCH tokens each."""
    size = max(1, TOKENS_PER_BATCH // seq_len)
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


class Frame:
    """A model around its blocks, for windows like ``ids`` [n, s] without padding: what the model
    hands each block besides the hidden state (``contexts``: mask, positions), and what follows
    the last block.

    Found by one run in which only the first block computes, so families need not describe it.
    """

    def __init__(self, model: nn.Module, adapter: ModelAdapter, ids: Tensor) -> None:
        self.model, self.adapter = model, adapter
        self.contexts: list[dict[str, Any]] = []
        self._rest: tuple | None = None  # what blocks give besides the hidden state
        self._runs = adapter.blocks(model)[0].forward
        with torch.no_grad(), _instead(adapter.blocks(model), self._record):
            adapter.backbone(model)(input_ids=ids.to(model.device), use_cache=False)

    def _record(self, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(type(block).forward).bind(block, *args, **kwargs).arguments
        del bound[next(iter(bound))]  # the block itself
        extra = bound.get("kwargs", {})
        self.contexts.append({k: v for k, v in {**bound, **extra}.items() if k not in _NOT_CONTEXT})
        if len(self.contexts) == 1:
            output = self._runs(*args, **kwargs)
            self._rest = output[1:] if isinstance(output, tuple) else None
            return output
        return self._given(args[0] if args else kwargs["hidden_states"])

    def _given(self, hidden: Tensor) -> Any:
        return hidden if self._rest is None else (hidden, *self._rest)

    def logits(self, ids: Tensor, leaving: Tensor) -> Tensor:
        """Logits [n, s, vocabulary] of windows ``ids`` whose last block gave ``leaving``
        [n, s, d]; differentiable by ``leaving``."""
        leaving = leaving.to(self.model.device)
        with _instead(self.adapter.blocks(self.model), lambda *_, **__: self._given(leaving)):
            return self.model(input_ids=ids.to(self.model.device), use_cache=False).logits


@contextmanager
def _instead(blocks: nn.ModuleList, call: Callable[..., Any]) -> Iterator[None]:
    """Let ``call`` answer for the forward pass of every block."""
    before = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = partial(call, block)
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


def block_contexts(model: nn.Module, adapter: ModelAdapter, seq_len: int) -> list[dict[str, Any]]:
    """What the model hands each block besides the hidden state, for windows of ``seq_len``; on
    the block's device."""
    frame = Frame(model, adapter, torch.zeros(1, seq_len, dtype=torch.long))
    blocks = adapter.blocks(model)
    return [
        moved(context, device_of(block))
        for block, context in zip(blocks, frame.contexts, strict=True)
    ]


@torch.no_grad()
def embed(model: nn.Module, adapter: ModelAdapter, ids: Tensor) -> Tensor:
    """Input of the first block for windows ``ids`` [n, s]; returns [n, s, d] on the CPU."""
    parts: list[Tensor] = []

    def stop(_block: nn.Module, *args: Any, **kwargs: Any) -> None:
        parts.append((args[0] if args else kwargs["hidden_states"]).cpu())
        raise _Stop

    with _instead(adapter.blocks(model), stop):
        for batch in batches(*ids.shape):
            with suppress(_Stop):
                adapter.backbone(model)(input_ids=ids[batch].to(model.device), use_cache=False)
    return torch.cat(parts)


def run_block(block: nn.Module, hidden: Tensor, context: Mapping[str, Any]) -> Tensor:
    """Output of a whole block for ``hidden`` [n, s, d], both on the CPU. ``context`` was found
    for as many windows."""
    device = device_of(block)
    output = block(hidden.to(device), **moved(context, device))
    return (output[0] if isinstance(output, tuple) else output).cpu()


def batched_logits(
    model: nn.Module, ids: Tensor, size: int, should_cancel: CancelCheck = never
) -> Iterator[tuple[Tensor, Tensor]]:
    """``size`` windows of ``ids`` [n, s] at a time with their logits [size, s, vocabulary], both
    on the model's device. Blocks that come and go are brought once for all windows; the hidden
    states [n, s, d] then wait on the CPU. Raises Cancelled."""
    adapter = adapter_for(model.config)
    blocks = adapter.blocks(model)
    parts = ids.split(size)
    if not is_offloaded(blocks[0]):
        for part in parts:
            part = part.to(model.device)
            yield part, model(input_ids=part, use_cache=False).logits
        return
    frames = {len(part): Frame(model, adapter, part) for part in (parts[0], parts[-1])}
    streams = [embed(model, adapter, part) for part in parts]
    for index, block in enumerate(blocks):
        stop_if(should_cancel)
        with resident(block, then=blocks[index + 1 : index + 2]), torch.no_grad():
            for place, hidden in enumerate(streams):
                context = frames[len(hidden)].contexts[index]
                streams[place] = run_block(block, hidden, context)
    for part in parts:
        part = part.to(model.device)
        yield part, frames[len(part)].logits(part, streams.pop(0))


@dataclass(frozen=True)
class Part:
    """What a module did with its tokens, or one expert with the tokens [t] routed to it:
    ``in_proj`` name -> [t, rows], ``out_proj_input`` [t, m], the ``tokens``' places in the run
    (None: all), ascending, and their ``shares`` [t] (None: no expert)."""

    in_proj: Mapping[str, Tensor]
    out_proj_input: Tensor
    tokens: Tensor | None = None
    shares: Tensor | None = None


class Tap:
    """Records, during a run of one module, the inputs and outputs of its layers.

    ``in_proj_input`` [n, s, d]; ``level1`` name -> [n, s, rows]; ``out_proj_input`` [n, s, m]. Of a
    mixture of experts the ``routing`` is recorded and, unless the run is stopped, what each expert
    gave its tokens (``expert_outputs`` [t, d], before the share is taken): the experts then work
    one after the other, for the kernel that runs all at once shows nothing of it. ``parts`` tells
    the rest. With ``stop_at_out_proj`` the run ends as soon as the level-2 input is known, or the
    routing.
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
        self._handles: list[Any] = []

    def __enter__(self) -> Tap:
        if self.module.mixture:
            self.module.mixture.module.forward = self._experts
            return self
        for layer in self.module.in_proj_layers():
            self._handles.append(layer.register_forward_hook(self._after_in_proj))
        self._handles.append(self.module.out_proj.register_forward_pre_hook(self._before_out_proj))
        return self

    def __exit__(self, kind, error, trace) -> bool:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self.module.mixture:
            del self.module.mixture.module.forward
        return kind is _Stop

    def _after_in_proj(self, layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.in_proj_input = inputs[0]
        for name, projection in self.module.in_proj.items():
            if projection.layer is layer:
                whole = len(projection.rows) == output.shape[-1]
                self.in_proj[name] = output if whole else output[..., projection.rows]

    def _before_out_proj(self, _layer: nn.Module, inputs: tuple) -> None:
        self.out_proj_input = inputs[0]
        if self.stop_at_out_proj:
            raise _Stop

    def _experts(self, *args: Any, **kwargs: Any) -> Tensor:
        """The experts' forward pass, [t, d]."""
        mixture, self.routing = self.module.mixture, Routing.of_call(args, kwargs)
        if self.stop_at_out_proj:
            raise _Stop
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
            self._parts = list(self._seen())
        return self._parts

    def _seen(self) -> Iterator[Part]:
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
    """Run one module on ``hidden`` [n, s, d] up to its level-2 input and return what was seen."""
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
    """Contribution of a module to the residual stream [n, s, d], and its level-2 output [n, s, d],
    or [n·s, d] of a mixture of experts.

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
