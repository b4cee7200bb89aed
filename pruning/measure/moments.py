"""Streaming sums over tokens, kept in float64."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
TOP_CHANNELS = 8
_BINS = 1024
_LOW, _HIGH = -30.0, 20.0  # log2 |x| that the histogram can tell apart


class MomentSum:
    """Mean, second moment and variance per channel of tensors [..., channels]."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        """Add tokens [..., channels]; there may be none."""
        flat = values.reshape(-1, values.shape[-1]).double()
        self.count += flat.shape[0]
        self.total = self.total + flat.sum(0)
        self.squares = self.squares + flat.square().sum(0)

    def mean(self) -> Tensor:
        return self.total / self.count

    def second_moment(self) -> Tensor:
        return self.squares / self.count

    def variance(self) -> Tensor:
        """Unbiased variance; zero for a single token."""
        centred = (self.second_moment() - self.mean().square()).clamp_min(0.0)
        return centred * (self.count / max(self.count - 1, 1))


class MagnitudeSum:
    """Magnitudes of a tensor as a whole: moments, quantiles of ``|x|`` and largest channels.

    Quantiles come from a histogram of ``log2 |x|`` with 1024 bins over 2^-30..2^20, so they
    are exact to about 3.5 per cent and need no stored activations.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.squares = 0.0
        self.maximum = 0.0
        self.absolute: Tensor | float = 0.0
        self.rows: Tensor | float = 0.0
        self.histogram = torch.zeros(_BINS, dtype=torch.float64)

    def add(self, values: Tensor, first: int = 0, of: int | None = None) -> None:
        """Add [..., channels]: all channels, or those from ``first`` on ``of`` so many."""
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
        self.total += flat.sum(dtype=torch.float64).item()
        self.squares += flat.double().square().sum().item()
        self.maximum = max(self.maximum, size.max().item())
        self.absolute[here] += size.sum(0, dtype=torch.float64).cpu()
        exponents = size.clamp_min(2.0**_LOW).log2().clamp_max(_HIGH)
        self.histogram += torch.histc(exponents, _BINS, _LOW, _HIGH).double().cpu()

    def quantiles(self) -> tuple[float, ...]:
        """``|x|`` at LEVELS."""
        cumulative = self.histogram.cumsum(0) / self.histogram.sum()
        places = torch.searchsorted(cumulative, torch.tensor(LEVELS, dtype=torch.float64))
        width = (_HIGH - _LOW) / _BINS
        exponents = _LOW + (places.clamp_max(_BINS - 1) + 0.5) * width
        return tuple(min(value, self.maximum) for value in exponents.exp2().tolist())

    def largest_channels(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Channels with the largest mean ``|x|``, and that mean."""
        mean = self.absolute / self.rows.clamp_min(1.0)
        top = mean.topk(min(TOP_CHANNELS, mean.numel()))
        return tuple(top.indices.tolist()), tuple(top.values.tolist())
