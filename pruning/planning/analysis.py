"""What a measurement says about heads and activations; numpy only, nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pruning.artifacts.measurement import ActivationSummary, Measurement
from pruning.criteria import unit_scores

OUTLIER_FACTOR = 20.0
"""A channel is an outlier when its mean |x| exceeds this many times the mean |x| of its tensor."""


@dataclass(frozen=True)
class SimilarityCount:
    """The similarity graph of one block in three numbers.

    ``edges``: pairs of heads with divergence below τ; ``groups``: connected components of two
    or more heads; ``heads``: heads that have at least one edge.
    """

    edges: int
    groups: int
    heads: int


@dataclass(frozen=True)
class ChannelMagnitude:
    """One channel's mean ``|x|`` (in the tensor's own units) and as a multiple of the tensor's."""

    channel: int
    mean_absolute: float
    times_mean: float
    is_outlier: bool


@dataclass(frozen=True)
class OutlierChannel:
    """A channel that is an outlier in ``blocks``; ``worst`` is its largest multiple of the mean."""

    channel: int
    blocks: tuple[int, ...]
    worst: float
    worst_block: int


def attention_sink_shares(pattern: np.ndarray) -> tuple[float, float, float]:
    """Shares of attention in a map [s, s] on the first token, on the token itself, and on the one
    before, over the rows where these differ (the third on)."""
    rows = np.arange(2, len(pattern))
    if not len(rows):
        return 1.0, 0.0, 0.0
    first, itself, before = pattern[rows, 0], pattern[rows, rows], pattern[rows, rows - 1]
    return float(first.mean()), float(itself.mean()), float(before.mean())


def nearest(divergence: np.ndarray, head: int) -> list[tuple[int, float]]:
    """All other heads with their divergence (nats) from ``head``, most alike first."""
    order = np.argsort(divergence[head], kind="stable")
    return [(int(other), float(divergence[head, other])) for other in order if other != head]


def most_alike(divergence: np.ndarray) -> tuple[int, int]:
    """The two heads of ``divergence`` [heads, heads] (nats) that differ least, the first such pair;
    a head that is alone is its own pair."""
    apart = divergence + 2.0 * np.eye(len(divergence))  # more than any divergence
    first, second = np.unravel_index(apart.argmin(), apart.shape)
    return int(first), int(second)


def head_importance(measurement: Measurement, block: int, score: str, seed: int = 0) -> np.ndarray:
    """Importance per head [heads] of one block by the criterion ``score``; ``seed`` is the
    recipe's. Raises NeedsMeasurement."""
    shape = measurement.shape.blocks[block].attention
    statistics = measurement.blocks[block].attention.statistics
    return unit_scores(score, statistics, shape, seed=seed, block=block)


def ranks(values: np.ndarray) -> np.ndarray:
    """Places [units] of ``values`` [units], 1 = smallest; equal values keep their order."""
    places = np.empty(len(values), dtype=int)
    places[np.argsort(values, kind="stable")] = np.arange(1, len(values) + 1)
    return places


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's ρ of two vectors [n]: the correlation of their ranks, equal values sharing the
    mean of their places. None where one of them has nothing to rank."""
    one, other = (_shared_ranks(np.asarray(values)) for values in (first, second))
    if one.std() == 0.0 or other.std() == 0.0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _shared_ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: np.ndarray = counts.cumsum() - (counts - 1) / 2
    return means[place]


def largest_channels(
    summary: ActivationSummary, factor: float = OUTLIER_FACTOR
) -> tuple[ChannelMagnitude, ...]:
    """The recorded largest channels, biggest first; the measurement keeps only a few of them."""
    scale = summary.mean_absolute
    rows = []
    for channel, value in zip(summary.top_channels, summary.top_values, strict=True):
        times = value / scale if scale > 0 else 0.0
        rows.append(ChannelMagnitude(channel, value, times, times > factor))
    return tuple(rows)


def outlier_channels(
    measurement: Measurement, place: str, factor: float = OUTLIER_FACTOR
) -> tuple[OutlierChannel, ...]:
    """Channels of ``place`` that are an outlier anywhere, those of most blocks first.

    Only among the channels that the measurement recorded per block, so it is a lower bound.
    """
    by_channel: dict[int, list[tuple[float, int]]] = {}
    for index, block in enumerate(measurement.blocks):
        for row in largest_channels(block.activations[place], factor):
            if row.is_outlier:
                by_channel.setdefault(row.channel, []).append((row.times_mean, index))
    rows = [
        OutlierChannel(channel, tuple(block for _, block in hits), *max(hits))
        for channel, hits in by_channel.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-len(row.blocks), -row.worst)))
