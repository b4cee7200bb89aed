"""Streaming sums over tokens: float32 within a batch, float64 over batches."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
TOP_CHANNELS = 8
_BINS = 2**15  # bfloat16 numbers without a sign


class MomentSum:
    """Mean, second moment and variance per channel of tensors [..., channels].

    Within a batch of a few thousand tokens the sums are taken in float32, of what differs from
    the first batch's mean: a large mean then costs the variance nothing. Batches are summed in
    float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self.centre: Tensor | None = None
        self._total: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        """Add tokens [..., channels]; there may be none."""
        flat = values.reshape(-1, values.shape[-1]).float()
        if self.centre is None or self.count == 0:
            self.centre = flat.sum(0) / max(len(flat), 1)
        self.count += flat.shape[0]
        apart = flat - self.centre
        self._total = self._total + _double(apart.sum(0))
        self._squares = self._squares + _double(apart.square_().sum(0))

    def mean(self) -> Tensor:
        return _double(self.centre) + self._total / self.count

    def second_moment(self) -> Tensor:
        centre = _double(self.centre)
        return (self._squares + 2.0 * centre * self._total) / self.count + centre.square()

    def variance(self) -> Tensor:
        """Unbiased variance; zero for a single token."""
        centred = self._squares / self.count - (self._total / self.count).square()
        return centred.clamp_min(0.0) * (self.count / max(self.count - 1, 1))


class MagnitudeSum:
    """Magnitudes of a tensor as a whole: moments, quantiles of ``|x|`` and largest channels.

    Quantiles come from a histogram with one bin for each bfloat16 number, so they are exact to
    0.4 per cent and need no stored activations.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.squares = 0.0
        self.maximum = 0.0
        self.absolute: Tensor | float = 0.0
        self.rows: Tensor | float = 0.0
        self.histogram = torch.zeros(_BINS, dtype=torch.int64)

    def add(self, values: Tensor, first: int = 0, of: int | None = None) -> None:
        """Add [..., channels]: all channels, or those from ``first`` on out of ``of``."""
        flat = values.reshape(-1, values.shape[-1]).float()
        if len(flat) == 0:
            return
        size = flat.abs()
        here = slice(first, first + flat.shape[-1])
        if self.count == 0:
            self.absolute = torch.zeros(of or flat.shape[-1], dtype=torch.float64)
            self.rows = torch.zeros_like(self.absolute)
        self.rows[here] += flat.shape[0]
        self.count += flat.numel()
        self.total += _double(flat.sum(0)).sum().item()
        self.squares += _double(flat.square().sum(0)).sum().item()
        self.maximum = max(self.maximum, size.max().item())
        self.absolute[here] += _double(size.sum(0)).cpu()
        numbers = size.bfloat16().view(torch.int16).flatten()  # no sign, so in order of size
        self.histogram += torch.bincount(numbers, minlength=_BINS).cpu()

    def quantiles(self) -> tuple[float, ...]:
        """``|x|`` at LEVELS."""
        cumulative = self.histogram.cumsum(0) / self.histogram.sum()
        places = torch.searchsorted(cumulative, torch.tensor(LEVELS, dtype=cumulative.dtype))
        values = places.to(torch.int16).view(torch.bfloat16).double()
        return tuple(min(value, self.maximum) for value in values.tolist())

    def largest_channels(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Channels with the largest mean ``|x|``, and that mean."""
        mean = self.absolute / self.rows.clamp_min(1.0)
        top = mean.topk(min(TOP_CHANNELS, mean.numel()))
        return tuple(top.indices.tolist()), tuple(top.values.tolist())


def _double(tensor: Tensor) -> Tensor:
    """``tensor`` in float64; where the device has none, on the CPU."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
