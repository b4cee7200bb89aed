"""The similarity graph: pure functions, the same numbers in, the same figure out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from app.charts.positions import node_positions
from tests.helpers.drawing import draw, drawn_edges, node_places, random_divergence


@pytest.mark.parametrize("heads", [2, 9, 32, 64])
def test_nodes_stand_apart_and_never_move_with_tau(heads: int) -> None:
    divergence = random_divergence(heads)
    places = [node_places(draw(divergence, tau)) for tau in (0.0, 0.1, 0.3, 0.69)]
    assert all(place == places[0] for place in places)
    points = np.array(list(places[0].values()))
    assert len(points) == heads
    assert np.isfinite(points).all() and points.min() >= 0 and points.max() <= 1
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(heads)
    assert gaps.min() > 0.5 * min(0.22, 0.85 / np.sqrt(heads))


def test_positions_are_the_same_twice_and_near_means_alike() -> None:
    divergence = random_divergence(12)
    divergence[3, 4] = divergence[4, 3] = 0.001
    first, second = node_positions(divergence), node_positions(divergence.copy())
    assert (first == second).all()
    apart = np.linalg.norm(first[:, None] - first[None], axis=2)
    assert apart[3, 4] < np.median(apart)


def test_heads_that_are_equal_or_alone_still_have_places() -> None:
    assert np.isfinite(node_positions(np.zeros((6, 6)))).all()
    assert node_positions(np.zeros((1, 1))).shape == (1, 2)


@pytest.mark.parametrize("tau", [0.0, 0.05, 0.2, 0.69])
@pytest.mark.parametrize("heads", [9, 64])
def test_edges_are_the_pairs_below_tau(heads: int, tau: float) -> None:
    divergence = random_divergence(heads)
    expected = int((divergence[np.triu_indices(heads, 1)] < tau).sum())
    assert drawn_edges(draw(divergence, tau)) == expected


def test_edges_of_the_selected_head_are_drawn_again_in_colour() -> None:
    divergence = random_divergence(9)
    figure = draw(divergence, 0.3, selected=4)
    coloured = [t for t in figure.data if t.mode == "lines" and not t.line.color.startswith("rgba")]
    assert sum(sum(x is None for x in trace.x) for trace in coloured) == int(
        (np.delete(divergence[4], 4) < 0.3).sum()
    )
    assert any(trace.name == "selected" for trace in figure.data)


def test_heads_that_go_are_hollow_with_a_cross() -> None:
    figure = draw(random_divergence(9), 0.2, going={2, 5})
    by_name = {trace.name: trace for trace in figure.data}
    goes, stays = by_name["goes"], by_name["stays"]
    assert set(goes.customdata) == {"head:2", "head:5"}
    assert all(symbol.endswith("-open") for symbol in goes.marker.symbol)
    assert not any(symbol.endswith("-open") for symbol in stays.marker.symbol)
    assert list(by_name["✕ goes"].text) == ["✕", "✕"]
    assert "goes: like head 0" in goes.hovertext[0] and "stays" in stays.hovertext[0]


def test_lines_pass_behind_hollow_heads() -> None:
    figure = draw(random_divergence(9), 0.69, going={2, 5}, per_group=3, paper="#123456")
    names = [trace.name for trace in figure.data]
    below = next(n for n, trace in enumerate(figure.data) if trace.marker.color == "#123456")
    lines = [n for n, trace in enumerate(figure.data) if trace.mode == "lines"]
    assert max(lines) < below < names.index("goes")
    disc, goes = figure.data[below], figure.data[names.index("goes")]
    assert (disc.x, disc.y, disc.marker.size) == (goes.x, goes.y, goes.marker.size)
    assert [f"{symbol}-open" for symbol in disc.marker.symbol] == list(goes.marker.symbol)


def test_shared_key_value_groups_are_told_by_shape_and_legend() -> None:
    figure = draw(random_divergence(9), 0.2, per_group=3)
    stays = next(trace for trace in figure.data if trace.name == "stays")
    assert stays.marker.symbol == ("circle",) * 3 + ("square",) * 3 + ("diamond",) * 3
    assert [t.name for t in figure.data if t.showlegend is None] == ["0", "1", "2"]
    plain = draw(random_divergence(9), 0.2)
    assert not plain.layout.showlegend


def test_figures_are_plain_json() -> None:
    figure = draw(random_divergence(64), 0.69, going=set(range(10)), per_group=8, selected=1)
    assert "NaN" not in figure.to_json()
    assert len(json.loads(figure.to_json())["data"]) < 30
