"""Where heads stand: apart from each other, near where alike, and always in the same place."""

from __future__ import annotations

import numpy as np
import pytest

from pruning.artifacts.measurement import Measurement
from pruning.planning.layout import content, head_layout, read_layouts, write_layouts
from pruning.utils.errors import SourceError
from tests.helpers.synthetic import random_divergence


@pytest.fixture(scope="module")
def demo() -> Measurement:
    return Measurement.read("assets/demo-measurement.json.gz")


def clusters(heads: int, count: int) -> np.ndarray:
    """Heads of ``count`` clusters in turn, very alike inside and unlike outside."""
    of = np.arange(heads) % count
    divergence = np.where(of[:, None] == of[None], 0.001, 0.5)
    np.fill_diagonal(divergence, 0.0)
    return divergence


def pair_distances(points: np.ndarray) -> np.ndarray:
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    return apart[np.triu_indices(len(points), 1)]


@pytest.mark.parametrize(
    "divergence",
    [
        *(random_divergence(heads) for heads in (2, 9, 32, 64)),
        *(clusters(9, 3), clusters(32, 4), clusters(32, 2)),
        *(np.zeros((6, 6)), np.zeros((32, 32))),
    ],
)
def test_no_two_heads_cover_each_other(divergence: np.ndarray) -> None:
    points, heads = head_layout(divergence), len(divergence)
    assert points.shape == (heads, 2) and np.isfinite(points).all()
    assert points.min() >= 0 and points.max() <= 1
    assert pair_distances(points).min() > 0.5 * min(0.22, 0.85 / np.sqrt(heads))


def test_no_two_heads_of_the_embedded_model_cover_each_other(demo: Measurement) -> None:
    """A node is at most 38 pixels wide in a chart of about 450 by 270."""
    for block in demo.blocks:
        assert pair_distances(head_layout(block.divergence)).min() > 0.2


def test_near_means_alike() -> None:
    divergence = random_divergence(12)
    divergence[3, 4] = divergence[4, 3] = 0.001
    points = head_layout(divergence)
    assert np.linalg.norm(points[3] - points[4]) < np.median(pair_distances(points))
    parted = clusters(12, 3)
    apart = pair_distances(head_layout(parted))
    alike = parted[np.triu_indices(12, 1)] < 0.1
    assert apart[alike].max() < apart[~alike].min()


def test_the_same_divergence_has_the_same_positions(demo: Measurement) -> None:
    for divergence in (random_divergence(9), demo.blocks[7].divergence):
        first, second = head_layout(divergence), head_layout(divergence.copy())
        assert (first == second).all()


def test_a_head_alone_stands_in_the_middle() -> None:
    assert head_layout(np.zeros((1, 1))).tolist() == [[0.5, 0.5]]


def test_stored_positions_read_back(demo: Measurement, tmp_path) -> None:
    path = tmp_path / "layout.json"
    write_layouts(demo, path)
    stored = read_layouts(path)
    assert len(stored) == len(demo.blocks)
    for block in demo.blocks[::7]:
        assert (stored[content(block.divergence)] == head_layout(block.divergence)).all()
    assert content(demo.blocks[0].divergence) != content(demo.blocks[1].divergence)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": "b"}'])
def test_a_damaged_file_is_one_sentence(text: str, tmp_path) -> None:
    path = tmp_path / "layout.json"
    path.write_text(text)
    with pytest.raises(SourceError, match="cannot be read"):
        read_layouts(path)
