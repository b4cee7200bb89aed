"""The dense and the pruned residual stream, and the module that both have come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapters.base import ModelAdapter, PrunableModule
from pruning.artifacts.shapes import ModuleKind
from pruning.data.windows import Windows
from pruning.models.execution.blockwise import batches, block_contexts, embed, share_of
from pruning.models.execution.offload import device_of, resident
from pruning.models.execution.tap import Tap, run_tapped, run_with_output
from pruning.utils.precision import autocast_in

HELD_OUT_EVERY = 10
"""Every tenth calibration window (with its augmentations) is held out to choose the damping."""


@dataclass(frozen=True)
class ModulePair:
    """The same module in the dense and in the pruned model. Its blocks compute on ``device``, with
    what the model hands them besides the hidden state (``context``); results are on ``device``
    unless said otherwise."""

    adapter: ModelAdapter
    index: int
    kind: ModuleKind
    dense_block: nn.Module
    pruned_block: nn.Module
    context: Mapping[str, Any]
    device: torch.device

    @property
    def dense(self) -> PrunableModule:
        return self.adapter.module(self.dense_block, self.kind)

    @property
    def pruned(self) -> PrunableModule:
        """As it is now: before or after the cut."""
        return self.adapter.module(self.pruned_block, self.kind)

    def tap_dense(self, hidden: Tensor) -> Tap:
        """What the dense module's layers read and give for ``hidden`` [n, s, d] on any device."""
        return self._tapped(self.dense_block, self.dense, hidden)

    def tap_pruned(self, hidden: Tensor) -> Tap:
        """The same of the pruned module."""
        return self._tapped(self.pruned_block, self.pruned, hidden)

    def _tapped(self, block: nn.Module, module: PrunableModule, hidden: Tensor) -> Tap:
        return run_tapped(self.adapter, block, module, hidden.to(self.device), self.context)

    def dense_output(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What the dense module adds to the stream, and its out_proj output (see
        :func:`run_with_output`), for ``hidden`` [n, s, d] on any device."""
        return self._output(self.dense_block, self.dense, hidden)

    def pruned_output(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The same of the pruned module."""
        return self._output(self.pruned_block, self.pruned, hidden)

    def _output(
        self, block: nn.Module, module: PrunableModule, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        return run_with_output(self.adapter, block, module, hidden.to(self.device), self.context)

    def dense_added(self, hidden: Tensor) -> Tensor:
        """What the dense module adds to the stream for ``hidden`` [n, s, d], where that is."""
        return self._added(self.dense_block, hidden)

    def pruned_added(self, hidden: Tensor) -> Tensor:
        """The same of the pruned module."""
        return self._added(self.pruned_block, hidden)

    def _added(self, block: nn.Module, hidden: Tensor) -> Tensor:
        added = self.adapter.run(block, self.kind, hidden.to(self.device), self.context)
        return added.to(hidden.device)

    def autocast(self) -> AbstractContextManager:
        """The number format in which the adapter runs modules, for layers that run alone."""
        return autocast_in(self.adapter.autocast_dtype, self.device)


class Streams:
    """The residual streams [n, s, d] (model dtype; see :func:`embed` for where) of the dense and of
    the pruned model for this rank's share of ``windows``, up to the module that comes next. Until
    the first cut both are one tensor.
    """

    def __init__(
        self, dense: nn.Module, pruned: nn.Module, adapter: ModelAdapter, windows: Windows
    ) -> None:
        mine = share_of(windows.ranks, *windows.ids.shape)
        self.dense = embed(dense, adapter, windows.ids[mine], stay=True)
        self.pruned = self.dense
        self.windows, self.ranks = windows, windows.ranks
        self._adapter, self._first = adapter, mine.start
        self._dense_blocks, self._pruned_blocks = adapter.blocks(dense), adapter.blocks(pruned)
        self._contexts = block_contexts(dense, adapter, windows.ids.shape[1])
        self._block_inputs: tuple[Tensor, Tensor] | None = None  # where both modules read them

    @property
    def diverged(self) -> bool:
        return self.pruned is not self.dense

    @property
    def tokens(self) -> int:
        """Of all ranks."""
        return self.windows.ids.numel()

    @contextmanager
    def block(self, index: int) -> Iterator[None]:
        """Have a block on its device, dense and pruned, inside the ``with`` statement."""
        dense, pruned = self._dense_blocks[index], self._pruned_blocks[index]
        if self._adapter.parallel(dense):
            entering = self.dense.clone()
            self._block_inputs = (entering, self.pruned.clone() if self.diverged else entering)
        try:
            with resident(dense, pruned, then=self._dense_blocks[index + 1 : index + 2]):
                yield
        finally:
            self._block_inputs = None

    def pair(self, index: int, kind: ModuleKind) -> ModulePair:
        """One of the two modules of a block."""
        dense, pruned = self._dense_blocks[index], self._pruned_blocks[index]
        context = self._contexts[index]
        return ModulePair(self._adapter, index, kind, dense, pruned, context, device_of(dense))

    def batches(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """What the next module reads, a few windows at a time: ``(windows, dense, pruned)``."""
        dense, pruned = self._block_inputs or (self.dense, self.pruned)
        for batch in batches(*self.dense.shape[:2]):
            yield batch, dense[batch], pruned[batch]

    def lost(self, batch: slice) -> Tensor:
        """What the pruned stream lacks so far [n, s, d], float32."""
        return self.dense[batch].float() - self.pruned[batch].float()

    def held_out(self, batch: slice) -> Tensor:
        """Which windows of a batch [n] are held out: every HELD_OUT_EVERY-th group."""
        groups = (self._first + torch.arange(batch.start, batch.stop)) // self.windows.group
        return groups % HELD_OUT_EVERY == HELD_OUT_EVERY - 1

    def added(self, pair: ModulePair) -> Iterator[tuple[slice, Tensor]]:
        """What the pruned module adds to the pruned stream, batch by batch, by running it."""
        for batch, _, pruned_in in self.batches():
            yield batch, pair.pruned_added(pruned_in)

    def pass_through(self, pair: ModulePair) -> None:
        """Advance both streams through a module that stays as it is."""
        for batch, dense_in, pruned_in in self.batches():
            self.dense[batch] += pair.dense_added(dense_in)
            if self.diverged:
                self.pruned[batch] += pair.pruned_added(pruned_in)

    def advance(self, dense_added: Tensor, pruned_added: Iterable[tuple[slice, Tensor]]) -> None:
        """Advance the dense stream by what the dense module added [n, s, d], the pruned one by
        what the cut module adds to each batch. From now on they are two."""
        if not self.diverged:
            self.pruned = self.dense.clone()
        for batch, added in pruned_added:
            self.pruned[batch] += added
        self.dense += dense_added
