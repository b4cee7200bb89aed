"""pruning.planning.analysis against hand-made cases."""

import numpy as np
import pytest

from pruning.artifacts.measurement import ActivationSummary, Measurement
from pruning.planning.analysis import (
    OUTLIER_FACTOR,
    head_importance,
    largest_channels,
    most_alike,
    nearest,
    outlier_channels,
    ranks,
)


@pytest.fixture(scope="module")
def demo() -> Measurement:
    return Measurement.read("assets/demo-measurement.json.gz")


def random_divergence(heads: int, seed: int) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).uniform(0.01, 0.69, (heads, heads)), 1)
    return upper + upper.T


def summary(mean: float, values: tuple[float, ...]) -> ActivationSummary:
    channels = tuple(range(len(values)))
    return ActivationSummary(0.0, mean, mean, max(values), (0.5,), (mean,), channels, values)


def test_nearest_is_sorted_and_leaves_the_head_out() -> None:
    divergence = random_divergence(7, 3)
    near = nearest(divergence, 2)
    assert sorted(other for other, _ in near) == [0, 1, 3, 4, 5, 6]
    assert [value for _, value in near] == sorted(value for _, value in near)
    assert near[0][1] == min(divergence[2][divergence[2] > 0])


def test_the_most_alike_pair_is_the_first_of_least_divergence() -> None:
    divergence = np.full((5, 5), 0.4) - 0.4 * np.eye(5)
    for first, second in ((1, 3), (2, 4)):
        divergence[first, second] = divergence[second, first] = 0.1
    assert most_alike(divergence) == (1, 3)
    assert most_alike(np.zeros((3, 3))) == (0, 1)
    assert most_alike(np.zeros((1, 1))) == (0, 0)


def test_ranks_count_from_the_weakest() -> None:
    assert ranks(np.array([0.3, 0.1, 0.2, 0.1])).tolist() == [4, 1, 3, 2]


def test_importance_has_one_value_per_head(demo: Measurement) -> None:
    for score in ("second_moment", "second_moment_exact"):
        importance = head_importance(demo, 4, score)
        assert importance.shape == (9,)
        assert (importance > 0).all()


def test_outlier_rule_is_strict() -> None:
    rows = largest_channels(summary(2.0, (41.0, 40.0, 10.0)))
    assert OUTLIER_FACTOR == 20.0
    assert [row.is_outlier for row in rows] == [True, False, False]
    assert [row.times_mean for row in rows] == [20.5, 20.0, 5.0]


def test_a_dead_tensor_has_no_outliers() -> None:
    assert not any(row.is_outlier for row in largest_channels(summary(0.0, (0.0, 0.0))))


def test_outlier_channels_collect_blocks(demo: Measurement) -> None:
    found = {row.channel: row for row in outlier_channels(demo, "residual")}
    row = found[507]
    for index, block in enumerate(demo.blocks):
        here = [c.channel for c in largest_channels(block.activations["residual"]) if c.is_outlier]
        assert (index in row.blocks) == (507 in here)
    assert row.worst_block in row.blocks
    assert not outlier_channels(demo, "residual", factor=1e9)
