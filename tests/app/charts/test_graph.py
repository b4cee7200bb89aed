"""The similarity graph: pure functions, the same numbers in, the same figure out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from app.session.positions import node_positions, stored_positions
from pruning.artifacts.measurement import Measurement
from pruning.planning.layout import content
from tests.helpers.head_graphs import draw, drawn_edges, node_places
from tests.helpers.synthetic import random_divergence


@pytest.mark.parametrize("heads", [1, 2, 9, 32])
def test_nodes_never_move_with_tau(heads: int) -> None:
    divergence = random_divergence(heads)
    places = [node_places(draw(divergence, tau)) for tau in (0.0, 0.1, 0.3, 0.69)]
    assert len(places[0]) == heads and all(place == places[0] for place in places)


def test_the_embedded_model_is_drawn_where_its_heads_were_laid_out(demo: Measurement) -> None:
    stored = stored_positions()
    assert set(stored) == {content(block.divergence) for block in demo.blocks}
    for block in demo.blocks[::10]:
        found = node_positions(block.divergence)
        assert found.shape == (9, 2) and (found == stored[content(block.divergence)]).all()
        assert not found.flags.writeable  # all visitors share it


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
    assert "rank 3 of 9" in goes.hovertext[0] and "nearest: head" in goes.hovertext[0]


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
