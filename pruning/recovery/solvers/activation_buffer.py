"""What out_proj of a module read, token by token, while that fits a bounded working set.

From it come the equations of just those channels that are kept, and what they add to the residual
stream once their weights are known, so that the module need not run again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pruning.distributed.ranks import ALONE, Ranks
from pruning.models.execution.blockwise import TOKENS_PER_BATCH
from pruning.models.limits import BUFFER_BYTES
from pruning.recovery.solvers.dual import DualNormalEquations
from pruning.recovery.solvers.gram import gram
from pruning.recovery.solvers.normal_equations import NormalEquations
from pruning.utils.precision import float64_device, sum_dtype


class ActivationBuffer:
    """Inputs [t, in] and targets [t, out] of the batches of a pass over this rank's windows, as
    they came; all ``ranks`` have ``tokens`` tokens (those that are held out included)."""

    def __init__(
        self, tokens: int, inputs: int, outputs: int, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self.tokens, self.outputs, self.device, self.ranks = tokens, outputs, device, ranks
        self._sum = torch.zeros(inputs, dtype=sum_dtype(device), device=device)
        self.parts: list[tuple[Tensor, Tensor]] = []

    def add(self, x: Tensor, target: Tensor) -> None:
        """Add a batch [..., in] and [..., out]."""
        x, target = x.flatten(0, -2), target.flatten(0, -2)
        self._sum += x.float().sum(0)
        self.parts.append((x, target))

    def gathered(self, ranks: Ranks) -> ActivationBuffer:
        """The same tokens; what is :meth:`select`-ed comes from those of all ``ranks``."""
        if ranks.size == 1:
            return self
        whole = ActivationBuffer(self.tokens, len(self._sum), self.outputs, self.device, ranks)
        whole.parts, whole._sum = self.parts, ranks.total(self._sum)
        return whole

    @property
    def count(self) -> int:
        return sum(len(x) for x, _ in self.parts)

    @property
    def inputs(self) -> Tensor:
        return self._sum

    def in_float64(self) -> ActivationBuffer:
        """On a device that has float64; numbers are as they came."""
        device = float64_device(self.device)
        if device == self.device:
            return self
        buffer = ActivationBuffer(self.tokens, len(self._sum), self.outputs, device, self.ranks)
        for x, target in self.parts:
            buffer.add(x.to(device), target.to(device))
        return buffer

    def select(self, channels: Tensor) -> NormalEquations | DualNormalEquations:
        """The equations of the input ``channels`` on the first rank, in the form that takes less
        memory; float64."""
        channels = channels.to(self.device)
        if self.tokens < len(self._sum):
            rows = DualNormalEquations.zeros(len(channels), self.outputs, self.device)
            for x, target in self._batches(channels):
                rows.add(x, target)
            return rows.gathered(self.ranks).in_float64()
        summed = NormalEquations.zeros(len(channels), self.outputs, self.device)
        summed.gram = gram(
            (x for x, _ in self._batches(channels)), len(channels), summed.gram.dtype, self.device
        )
        for x, target in self._batches(channels):
            summed.count += len(x)
            summed.cross += x.T @ target
            summed.targets += target.sum(0)
            summed.energy += target.square().sum(0).sum(dtype=summed.energy.dtype)
        summed = summed.gathered(self.ranks)
        summed.inputs = self._sum[channels]
        return summed.in_float64()

    def _batches(self, channels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The ``channels`` of the inputs and the targets in float32, a few thousand tokens at a
        time."""
        waiting: list[tuple[Tensor, Tensor]] = []
        for part in [*self.parts, None]:
            tokens = sum(len(x) for x, _ in waiting) + (len(part[0]) if part else TOKENS_PER_BATCH)
            if waiting and tokens > TOKENS_PER_BATCH:
                x = torch.cat([x.index_select(1, channels) for x, _ in waiting])
                yield x.float(), torch.cat([target for _, target in waiting]).float()
                waiting = []
            waiting.append(part)


Equations = NormalEquations | ActivationBuffer


def equations(
    tokens: int, inputs: int, outputs: int, device: torch.device, dtype: torch.dtype
) -> Equations:
    """No tokens yet, of so many in all: collected as they come in ``dtype`` while that takes no
    more than BUFFER_BYTES, added up where it would take more."""
    size = tokens * (inputs * dtype.itemsize + outputs * 4)
    if size <= BUFFER_BYTES or tokens < inputs:
        return ActivationBuffer(tokens, inputs, outputs, device)
    return NormalEquations.zeros(inputs, outputs, device)
