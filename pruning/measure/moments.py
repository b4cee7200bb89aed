"""Streaming sums over tokens: float32 within a batch, float64 over batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pruning.distributed.ranks import Ranks
from pruning.utils.precision import float64_device, to_float64, zeros_float64

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
TOP_CHANNELS = 8
_BINS = 2**15  # bfloat16 numbers without a sign
_SIDES = 32  # places for each of them on a card
_AT_ONCE = 16
"""Sums of batches that wait on a device without float64 at most."""


class Float64Queue:
    """Hands tensors of any size on in float64, in their order. Each step to float64 waits for a
    device that has none, so there they are brought from it several at once."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, Callable[[Tensor], None]]] = []

    def bring(self, tensor: Tensor, to: Callable[[Tensor], None]) -> None:
        """Have ``to`` called with ``tensor``, at the latest by :meth:`finish`."""
        self._waiting.append((tensor, to))
        if len(self._waiting) == _AT_ONCE or float64_device(tensor.device) == tensor.device:
            self.finish()

    def finish(self) -> None:
        """Hand on what still waits."""
        waiting, self._waiting = self._waiting, []
        if len(waiting) < 2:
            for tensor, to in waiting:
                to(to_float64(tensor))
            return
        together = to_float64(torch.cat([tensor.flatten() for tensor, _ in waiting]))
        parts = together.split([tensor.numel() for tensor, _ in waiting])
        for (tensor, to), part in zip(waiting, parts, strict=True):
            to(part.view(tensor.shape))


class MomentSum:
    """Mean, second moment and variance per channel of tensors [..., channels].

    Within a batch of a few thousand tokens the sums are taken in float32, of what differs from
    the first batch's mean: a large mean then costs the variance nothing. Batches are summed in
    float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self.centre: Tensor | None = None
        self._float64 = Float64Queue()
        self._sums: Tensor | float = 0.0  # [2, channels]: of what differs, and of its squares

    def add(self, values: Tensor) -> None:
        """Add tokens [..., channels]; there may be none."""
        flat = values.reshape(-1, values.shape[-1])
        if self.centre is None or self.count == 0:
            self.centre = flat.sum(0, dtype=torch.float32) / max(len(flat), 1)
        self.count += flat.shape[0]
        apart = flat - self.centre  # float32, like the mean
        self._float64.bring(torch.stack([apart.sum(0), apart.square_().sum(0)]), self._summed)

    def _summed(self, sums: Tensor) -> None:
        self._sums = self._sums + sums

    def _found(self) -> Tensor:
        self._float64.finish()
        return self._sums

    def gather(self, ranks: Ranks) -> None:
        """From now on these are the sums over the tokens of all ``ranks``."""
        if ranks.size == 1:
            return
        assert self.centre is not None  # every rank has windows
        centre, sums = to_float64(self.centre), self._found()
        row = torch.cat([centre.new_tensor([self.count]), centre, sums.flatten()])
        counts, centres, totals = ranks.gathered(row[None]).split(
            [1, len(centre), sums.numel()], dim=1
        )
        # all are told apart from the same mean: that of the first that has one
        common = centres[int((counts[:, 0] > 0).int().argmax())]
        shift, (total, squares) = centres - common, totals.unflatten(1, (2, -1)).unbind(1)
        self.centre, self.count = common, int(counts.sum())
        moved = total + counts * shift
        self._sums = torch.stack(
            [moved.sum(0), (squares + shift * (2.0 * total + counts * shift)).sum(0)]
        )

    def mean(self) -> Tensor:
        return to_float64(self.centre) + self._found()[0] / self.count

    def second_moment(self) -> Tensor:
        centre, (total, squares) = to_float64(self.centre), self._found()
        return (squares + 2.0 * centre * total) / self.count + centre.square()

    def variance(self) -> Tensor:
        """Unbiased variance; zero for a single token."""
        total, squares = self._found()
        centred = squares / self.count - (total / self.count).square()
        return centred.clamp_min(0.0) * (self.count / max(self.count - 1, 1))


class MagnitudeSum:
    """Magnitudes of a tensor as a whole: moments, quantiles of ``|x|`` and largest channels.

    Quantiles come from a histogram with one bin for each bfloat16 number, so they are exact to
    0.4 per cent and need no stored activations.
    """

    def __init__(self) -> None:
        self.count = 0
        self._float64 = Float64Queue()
        self._total: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0
        self._maximum: Tensor | float = 0.0
        self._absolute: Tensor | float = 0.0  # [channels]
        self._rows: Tensor | float = 0.0  # [channels], CPU
        self._histogram: Tensor | int = 0

    def add(self, values: Tensor, first: int = 0, of: int | None = None) -> None:
        """Add [..., channels]: all channels, or those from ``first`` on out of ``of``."""
        flat = values.reshape(-1, values.shape[-1]).float()
        if len(flat) == 0:
            return
        size = flat.abs()
        here = slice(first, first + flat.shape[-1])
        if self.count == 0:
            self._absolute = zeros_float64(of or flat.shape[-1], device=flat.device)
            self._rows = zeros_float64(of or flat.shape[-1])
        self._rows[here] += flat.shape[0]
        self.count += flat.numel()
        # all sums stay on the device, so that nothing waits for it
        sums = torch.stack([flat.sum(0), flat.square().sum(0), size.sum(0)])
        self._float64.bring(sums, partial(self._summed, here))
        largest = size.max()
        self._maximum = torch.fmax(largest, torch.as_tensor(self._maximum, device=largest.device))
        numbers = size.bfloat16().view(torch.int16).flatten()  # no sign, so in order of size
        self._histogram = self._histogram + _counts(numbers)

    def _summed(self, here: slice, sums: Tensor) -> None:
        self._total = self._total + sums[0].sum()
        self._squares = self._squares + sums[1].sum()
        self._absolute[here] += sums[2]

    def gather(self, ranks: Ranks) -> None:
        """From now on these are the sums over the tokens of all ``ranks``."""
        if ranks.size == 1:
            return
        self._float64.finish()
        self._total, self._squares, self._absolute, self._rows, self._histogram = (
            ranks.total(torch.as_tensor(part))
            for part in (self._total, self._squares, self._absolute, self._rows, self._histogram)
        )
        self._maximum = ranks.gathered(torch.as_tensor(self._maximum)[None]).amax(0)
        self.count = int(ranks.total(torch.tensor(self.count)))

    @property
    def mean(self) -> float:
        self._float64.finish()
        return float(self._total) / self.count

    @property
    def mean_absolute(self) -> float:
        self._float64.finish()
        return float(self._absolute.sum()) / self.count

    @property
    def rms(self) -> float:
        self._float64.finish()
        return (float(self._squares) / self.count) ** 0.5

    @property
    def maximum(self) -> float:
        """The largest ``|x|``."""
        return float(self._maximum)

    def quantiles(self) -> tuple[float, ...]:
        """``|x|`` at LEVELS."""
        histogram, maximum = self._histogram.cpu(), self.maximum
        cumulative = histogram.cumsum(0) / histogram.sum()
        places = torch.searchsorted(cumulative, torch.tensor(LEVELS, dtype=cumulative.dtype))
        values = places.to(torch.int16).view(torch.bfloat16).float()
        return tuple(min(value, maximum) for value in values.tolist())

    def largest_channels(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Channels with the largest mean ``|x|``, and that mean."""
        self._float64.finish()
        mean = self._absolute.cpu() / self._rows.clamp_min(1.0)
        top = mean.topk(min(TOP_CHANNELS, mean.numel()))
        return tuple(top.indices.tolist()), tuple(top.values.tolist())


def _counts(numbers: Tensor) -> Tensor:
    """How often each of _BINS numbers is among ``numbers`` [n]."""
    if numbers.device.type != "cuda":
        return torch.bincount(numbers, minlength=_BINS)
    # there bincount waits for the device, to look for numbers out of range. Most numbers fall into
    # few bins, where they would wait for each other: neighbours have bins of their own
    side = torch.arange(len(numbers), dtype=torch.int32, device=numbers.device) % _SIDES
    places = numbers.int() * _SIDES + side
    counts = torch.zeros(_BINS * _SIDES, dtype=torch.int32, device=numbers.device)
    counts.index_add_(0, places, counts.new_ones(()).expand(len(places)))
    return counts.view(_BINS, _SIDES).sum(1)
