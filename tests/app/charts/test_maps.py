"""Heatmap, overview, sheet, attention maps and activations."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from app.charts import activations as magnitude
from app.charts import plan_map
from app.charts.divergence import divergence_heatmap
from app.charts.figure import figure
from app.charts.overview import blocks_overview
from app.charts.pattern import block_mosaic, pattern_alt, pattern_map
from app.charts.picks import point_id
from app.charts.sheet import ordered, sheet_alt, sheet_of_graphs
from app.session.positions import node_positions
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.planning import make_plan
from pruning.planning.analysis import OUTLIER_FACTOR, attention_sink_shares, largest_channels
from pruning.planning.graph import block_graph, count_similar, leaving
from tests.helpers.synthetic import random_divergence


@pytest.mark.parametrize("heads", [1, 9, 64])
def test_heatmap_dots_are_the_cells_below_tau(heads: int) -> None:
    divergence = random_divergence(heads)
    figure = divergence_heatmap(divergence, 0.2, selected=0)
    by_name = {trace.name: trace for trace in figure.data}
    off_diagonal = ~np.eye(heads, dtype=bool)
    assert len(by_name["below τ"].x) == int(((divergence < 0.2) & off_diagonal).sum())
    assert len(by_name["pairs"].customdata) == heads * (heads - 1)
    heatmap = figure.data[0]
    assert (heatmap.zmin, heatmap.zmax) == (0.0, pytest.approx(np.log(2)))
    assert heatmap.colorbar.title.text == "JS divergence (nats)"


def test_heatmap_ids_name_the_cell_they_lie_on() -> None:
    figure = divergence_heatmap(random_divergence(4), 0.2)
    layer = next(trace for trace in figure.data if trace.name == "pairs")
    for name, x, y in zip(layer.customdata, layer.x, layer.y, strict=True):
        assert name == point_id("pair", y, x)


def test_overview_shows_what_the_plan_takes(demo: Measurement) -> None:
    plan = make_plan(demo, Recipe().changed(heads={"threshold": 0.1, "ratio": 0.34}))
    counts = [count_similar(graph) for graph in sheet_graphs(demo, 0.1)]
    figure = blocks_overview(plan, counts, open_block=3)
    by_name = {trace.name: trace for trace in figure.data}
    gone = [len(block.attention.removed) for block in plan.blocks]
    assert list(by_name["gone"].y) == gone
    assert list(by_name["edges"].y) == [count.edges for count in counts]
    assert list(by_name["groups"].y) == [count.groups for count in counts]
    assert len(by_name["✕ alike"].x) + len(by_name["○ weak"].x) == sum(gone)
    assert len(by_name["stays"].x) == 270 - sum(gone)
    assert by_name["edges"].customdata[7] == "block:7"
    x, y, name = (by_name["stays"][key][5] for key in ("x", "y", "customdata"))
    assert name == point_id("block", x, y)


def test_overview_shows_marks_losses_and_the_picked_head(demo: Measurement) -> None:
    recipe = Recipe().changed(marks={2: {"keep": [1], "drop": [0]}})
    plan = make_plan(demo, recipe)
    counts = [count_similar(graph) for graph in sheet_graphs(demo, 0.1)]
    losses = {"attention": [0.25] * 30, "ffn": [0.5] * 30}
    figure = blocks_overview(plan, counts, open_block=2, selected=1, losses=losses)
    by_name = {trace.name: trace for trace in figure.data}
    assert list(by_name["▣ marked keep"].customdata) == ["block:2:1"]
    assert list(by_name["◇ marked drop"].customdata) == ["block:2:0"]
    assert (by_name["selected"].x[0], by_name["selected"].y[0]) == (2, 1)
    assert list(by_name["loss, FFN"].base) == [0.25] * 30
    assert "0.5000 nats" in by_name["loss, FFN"].hovertext[3]


def sheet_graphs(demo: Measurement, tau: float) -> list[nx.Graph]:
    recipe = Recipe().changed(heads={"threshold": tau})
    plan = make_plan(demo, recipe)
    return [
        block_graph(demo, plan, recipe, index, node_positions(block.divergence))
        for index, block in enumerate(demo.blocks)
    ]


def test_the_sheet_has_every_block_edge_and_head(demo: Measurement) -> None:
    graphs = sheet_graphs(demo, 0.12)
    figure = sheet_of_graphs(graphs, open_block=4, selected=3)
    by_name = {trace.name.split(" (")[0]: trace for trace in figure.data}
    lines = [trace for trace in figure.data if trace.name == "edges"]
    below = sum(int((np.triu(b.divergence < 0.12, 1)).sum()) for b in demo.blocks)
    assert sum(len(t.x) // 3 for t in lines) == below > 0
    gone = sum(len(leaving(graph)) for graph in graphs)
    assert gone and len(by_name["✕ would go"].x) == gone
    assert len(by_name["stays"].x) == 270 - gone
    blocks = by_name["blocks"]
    assert list(blocks.customdata) == [point_id("block", n) for n in range(30)]
    assert "Block 4" in blocks.hovertext[4] and "edges" in blocks.hovertext[4]
    assert sheet_alt(graphs).endswith(".") and f"{gone} heads" in sheet_alt(graphs)


def test_the_sheet_is_ordered(demo: Measurement) -> None:
    graphs = sheet_graphs(demo, 0.12)
    assert ordered(graphs, "block") == graphs
    counts = [graph.number_of_edges() for graph in ordered(graphs, "alike")]
    assert counts == sorted(counts, reverse=True)


def test_maps_show_no_future_and_tiles_pick_heads() -> None:
    one = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    figure = pattern_map(one, tuple("abcdef"))
    assert figure.data[0].z[0][1] is None and figure.data[0].z[5][0] == pytest.approx(1 / 6, 1e-3)
    mosaic = block_mosaic(np.stack([one] * 5), selected=3)
    assert list(mosaic.data[1].customdata) == [f"head:{n}" for n in range(5)]
    assert len(mosaic.layout.shapes) == 1
    first, itself, before = attention_sink_shares(np.eye(6))
    assert (first, itself, before) == (0.0, 1.0, 0.0)
    assert "100% to the token itself" in pattern_alt(0, 1, np.eye(6), tuple("abcdef"))


def test_magnitudes_cover_every_block_and_place(demo: Measurement) -> None:
    figure = magnitude.magnitude_per_block(demo, open_block=5)
    drawn = [trace for trace in figure.data if trace.showlegend is False]
    means = [trace for trace in drawn if trace.name == "mean |x|"]
    assert len(means) == 3
    assert list(means[0].y) == pytest.approx(
        [block.activations["residual"].mean_absolute for block in demo.blocks]
    )
    assert all(len(trace.x) == 30 for trace in drawn)
    assert all(value > 0 for trace in drawn for value in trace.y)


def test_outliers_are_hatched(demo: Measurement) -> None:
    channels = largest_channels(demo.blocks[12].activations["residual"])
    bars = figure(magnitude.channel_bars(12, "residual", channels, OUTLIER_FACTOR)).data[0]
    assert ["/" if row.is_outlier else "" for row in channels] == list(bars.marker.pattern.shape)
    assert any(row.is_outlier for row in channels)


def test_maps_of_a_plan_carry_blocks_and_frame_the_open_one(demo: Measurement) -> None:
    plan = make_plan(demo, Recipe().changed(heads={"threshold": 0.1}, ffn={"ratio": 0.25}))
    bars, share, heads = (
        figure(chart(plan), open_block=4)
        for chart in (plan_map.block_widths, plan_map.ffn_share, plan_map.head_map)
    )
    for trace in (*bars.data, *share.data):
        assert list(trace.customdata) == [f"block:{index}" for index in range(30)]
    ids = {ident for trace in heads.data for ident in trace.customdata}
    assert ids == {f"block:{block}:{head}" for block in range(30) for head in range(9)}
    for drawn in (bars, share, heads):
        (frame,) = drawn.layout.shapes
        assert (frame.x0, frame.x1) == (3.5, 4.5)
    assert not figure(plan_map.head_map(plan)).layout.shapes
    assert "1,152 of 1,536 FFN channels kept" in bars.data[1].hovertext[4]
