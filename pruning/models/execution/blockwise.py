"""Runs a model block by block over calibration windows; only the residual stream is kept."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, adapter_for
from pruning.artifacts.events import CancelCheck, never, stop_if
from pruning.distributed.ranks import Ranks
from pruning.models.execution.forward import replaced_forwards
from pruning.models.execution.offload import device_of, is_offloaded, moved, resident
from pruning.models.limits import STREAM_BYTES
from pruning.utils.errors import UsageError

TOKENS_PER_BATCH = 2048
_NOT_CONTEXT = {"hidden_states", "cache", "past_key_values", "layer_past", "use_cache", "kwargs"}


class _Embedded(Exception):
    """Ends a forward pass once the first block's input is known."""


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


def share_of(ranks: Ranks, samples: int, seq_len: int) -> slice:
    """The windows, out of so many, that this rank works on. Raises UsageError where some would get
    none.

    Whole batches where that is even enough: sums are then rounded as in a single process."""
    if samples < ranks.size:
        raise UsageError(
            f"{ranks.size} processes cannot share {samples} windows; start fewer, or take more "
            "samples."
        )
    whole = batches(samples, seq_len)
    if len(whole) % ranks.size == 0 or len(whole) > 8 * ranks.size:
        edges = [batch.start for batch in whole] + [samples]
    else:
        edges = list(range(samples + 1))
    first, last = (
        edges[(len(edges) - 1) * place // ranks.size] for place in (ranks.rank, ranks.rank + 1)
    )
    return slice(first, last)


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
        with torch.no_grad(), replaced_forwards(adapter.blocks(model), self._record):
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
        with replaced_forwards(
            self.adapter.blocks(self.model), lambda *_, **__: self._given(leaving)
        ):
            return self.model(input_ids=ids.to(self.model.device), use_cache=False).logits


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
def embed(model: nn.Module, adapter: ModelAdapter, ids: Tensor, *, stay: bool = False) -> Tensor:
    """Input of the first block for windows ``ids`` [n, s]; returns [n, s, d] on the CPU, or with
    ``stay`` on the device where all blocks are, unless it takes more than STREAM_BYTES."""
    parts: list[Tensor] = []
    stay = stay and not is_offloaded(adapter.blocks(model)[0])

    def keep(_block: nn.Module, *args: Any, **kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        stays = stay and hidden[0].nbytes * len(ids) <= STREAM_BYTES
        parts.append(hidden if stays else hidden.cpu())
        raise _Embedded

    with replaced_forwards(adapter.blocks(model), keep):
        for batch in batches(*ids.shape):
            with suppress(_Embedded):
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
    on the model's device. Offloaded blocks are brought once for all windows; the hidden
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
