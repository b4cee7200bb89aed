"""Charts are pure functions: the same numbers in, the same figure out."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest

from app.charts import activations as magnitude
from app.charts.divergence import divergence_alt, divergence_heatmap
from app.charts.graph import HeadNode, graph_alt, similarity_graph
from app.charts.overview import blocks_overview, overview_alt
from app.charts.pattern import block_mosaic, pattern_alt, pattern_map
from app.charts.picks import picked, point_id
from app.charts.positions import node_positions
from app.charts.sheet import Tile, ordered, sheet_alt, sheet_of_graphs
from app.explain import explain_head, spans
from pruning.criteria.similarity import edges
from pruning.insight import (
    OUTLIER_FACTOR,
    count_similar,
    largest_channels,
    looking_habits,
    nearest,
)
from pruning.measurement import Measurement
from pruning.plan import ModulePlan
from pruning.planning import make_plan
from pruning.recipe import Recipe
from pruning.shape import ModuleShape


@pytest.fixture(scope="module")
def demo() -> Measurement:
    return Measurement.read("assets/demo-measurement.json.gz")


def random_divergence(heads: int, seed: int = 0) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).uniform(0.02, 0.5, (heads, heads)), 1)
    return upper + upper.T


def make_nodes(divergence: np.ndarray, going: set[int], per_group: int = 1) -> list[HeadNode]:
    return [
        HeadNode(
            head,
            head // per_group,
            1.0 + head,
            head + 1,
            *nearest(divergence, head)[0],
            f"like head 0, JS 0.1 nats, {head}" if head in going else None,
        )
        for head in range(len(divergence))
    ]


def draw(divergence: np.ndarray, tau: float, going: set[int] = frozenset(), **options) -> go.Figure:
    per_group = options.pop("per_group", 1)
    return similarity_graph(
        node_positions(divergence),
        edges(divergence, tau),
        make_nodes(divergence, set(going), per_group),
        scale=(0.02, 0.5),
        **options,
    )


def node_places(figure: go.Figure) -> dict[str, tuple[float, float]]:
    return {
        name: (x, y)
        for trace in figure.data
        if trace.customdata is not None
        for name, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }


def drawn_edges(figure: go.Figure) -> int:
    return sum(
        sum(x is None for x in trace.x)
        for trace in figure.data
        if trace.mode == "lines" and trace.line.color.startswith("rgba")
    )


# Similarity graph


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


def test_shared_key_value_groups_are_told_by_shape_and_legend() -> None:
    figure = draw(random_divergence(9), 0.2, per_group=3)
    stays = next(trace for trace in figure.data if trace.name == "stays")
    assert stays.marker.symbol == ("circle",) * 3 + ("square",) * 3 + ("diamond",) * 3
    assert [t.name for t in figure.data if t.showlegend is None] == ["0", "1", "2"]
    plain = draw(random_divergence(9), 0.2)
    assert not plain.layout.showlegend


# Heatmap


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


# Overview


def test_overview_shows_what_the_plan_takes(demo: Measurement) -> None:
    plan = make_plan(demo, Recipe().changed(heads={"threshold": 0.1, "ratio": 0.34}))
    counts = [count_similar(block.divergence, 0.1) for block in demo.blocks]
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
    counts = [count_similar(block.divergence, 0.1) for block in demo.blocks]
    losses = {"attention": [0.25] * 30, "ffn": [0.5] * 30}
    figure = blocks_overview(plan, counts, open_block=2, selected=1, losses=losses)
    by_name = {trace.name: trace for trace in figure.data}
    assert list(by_name["▣ marked keep"].customdata) == ["block:2:1"]
    assert list(by_name["◇ marked drop"].customdata) == ["block:2:0"]
    assert (by_name["selected"].x[0], by_name["selected"].y[0]) == (2, 1)
    assert list(by_name["loss, FFN"].base) == [0.25] * 30
    assert "0.5000 nats" in by_name["loss, FFN"].hovertext[3]


# Sheet


def sheet_tiles(demo: Measurement, tau: float) -> list[Tile]:
    plan = make_plan(demo, Recipe().changed(heads={"threshold": tau}))
    return [
        Tile(
            index,
            node_positions(measured.divergence),
            measured.divergence,
            block.attention,
            count_similar(measured.divergence, tau),
        )
        for index, (measured, block) in enumerate(zip(demo.blocks, plan.blocks, strict=True))
    ]


def test_the_sheet_has_every_block_edge_and_head(demo: Measurement) -> None:
    tiles = sheet_tiles(demo, 0.12)
    figure = sheet_of_graphs(tiles, 0.12, open_block=4, selected=3)
    by_name = {trace.name.split(" (")[0]: trace for trace in figure.data}
    lines = [trace for trace in figure.data if trace.name == "edges"]
    assert sum(len(t.x) // 3 for t in lines) == sum(tile.count.edges for tile in tiles)
    gone = sum(len(tile.module.removed) for tile in tiles)
    assert gone and len(by_name["✕ would go"].x) == gone
    assert len(by_name["stays"].x) == 270 - gone
    blocks = by_name["blocks"]
    assert list(blocks.customdata) == [point_id("block", n) for n in range(30)]
    assert "Block 4" in blocks.hovertext[4] and "edges" in blocks.hovertext[4]
    assert sheet_alt(tiles, 0.12).endswith(".") and f"{gone} heads" in sheet_alt(tiles, 0.12)


def test_the_sheet_is_ordered(demo: Measurement) -> None:
    tiles = sheet_tiles(demo, 0.12)
    assert ordered(tiles, "block") == tiles
    counts = [tile.count.edges for tile in ordered(tiles, "alike")]
    assert counts == sorted(counts, reverse=True)


# Attention maps


def test_maps_show_no_future_and_tiles_pick_heads() -> None:
    one = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    figure = pattern_map(one, tuple("abcdef"))
    assert figure.data[0].z[0][1] is None and figure.data[0].z[5][0] == pytest.approx(1 / 6, 1e-3)
    mosaic = block_mosaic(np.stack([one] * 5), selected=3)
    assert list(mosaic.data[1].customdata) == [f"head:{n}" for n in range(5)]
    assert len(mosaic.layout.shapes) == 1
    first, itself, before = looking_habits(np.eye(6))
    assert (first, itself, before) == (0.0, 1.0, 0.0)
    assert "100% to the token itself" in pattern_alt(0, 1, np.eye(6), tuple("abcdef"))


# Activations


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
    bars = magnitude.channel_bars(channels, "residual", OUTLIER_FACTOR).data[0]
    assert ["/" if row.is_outlier else "" for row in channels] == list(bars.marker.pattern.shape)
    assert any(row.is_outlier for row in channels)


# Words


def test_every_chart_has_a_text_alternative(demo: Measurement) -> None:
    divergence, activations = demo.blocks[5].divergence, dict(demo.blocks[5].activations)
    plan = make_plan(demo, Recipe().changed(heads={"threshold": 0.1}))
    counts = [count_similar(block.divergence, 0.1) for block in demo.blocks]
    pairs = edges(divergence, 0.1)
    texts = [
        graph_alt(5, pairs, make_nodes(divergence, {1}), 0.1),
        divergence_alt(5, divergence, 0.1),
        divergence_alt(5, np.zeros((1, 1)), 0.1),
        overview_alt(plan, counts),
        magnitude.magnitude_alt(demo),
        magnitude.profile_alt(5, activations),
        magnitude.channels_alt(5, "ffn", largest_channels(activations["ffn"])),
    ]
    assert all(text.endswith(".") and len(text) > 30 for text in texts)
    assert f"{len(pairs)} edges" in texts[0] and "Heads that go: 1." in texts[0]


def test_every_head_is_explained_as_the_plan_decides(demo: Measurement) -> None:
    for rule in ({"threshold": 0.1}, {"ratio": 0.4}, {"threshold": 0.15, "policy": "kv_group"}):
        recipe = Recipe().changed(heads=rule)
        plan = make_plan(demo, recipe)
        for block in (0, 5, 20):
            module = plan.blocks[block].attention
            shape = demo.shape.blocks[block].attention
            for head in range(9):
                text = "\n".join(
                    explain_head(
                        head, demo.blocks[block].divergence, 3, 1.0, module, shape, recipe.heads
                    )
                )
                assert ("It would go" in text) == (head in module.removed)
                assert (module.reason(head) or "It would stay") in text
                assert "Key/value group" in text


def test_a_head_whose_like_goes_too_says_who_is_left() -> None:
    divergence = np.full((9, 9), 0.4) - 0.4 * np.eye(9)
    for i, j, value in ((0, 3, 0.05), (0, 6, 0.06)):
        divergence[i, j] = divergence[j, i] = value
    shape = ModuleShape("attention", 9, 9, 1, 1, 0, 0, 0, 0)
    rule = Recipe().changed(heads={"threshold": 0.1}).heads

    def fate(removed: tuple[int, ...], partners: tuple[int, ...]) -> str:
        count = len(removed)
        module = ModulePlan(
            0, "attention", 9, 9, False, removed, ("similarity",) * count, (0.05,) * count,
            partners, (0,) * count, removed,
        )  # fmt: skip
        return explain_head(0, divergence, 1, 1.0, module, shape, rule)[-1]

    assert fate((0,), (3,)) == "**✕ It would go:** like head 3, JS 0.050 nats."
    assert "Head 3 goes as well; head 6, also within τ, stays." in fate((0, 3), (3, 6))
    assert "no other head within τ stays" in fate((0, 3, 6), (3, 6, 0))


def test_runs_of_blocks_are_shortened() -> None:
    assert spans((2, 3, 4, 8)) == "2–4, 8"
    assert spans(()) == ""


# Clicks


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"selection": {"points": [{"customdata": "head:7"}]}}, (7,)),
        ({"selection": {"points": [{"customdata": ["head:7"]}]}}, (7,)),
        ({"selection": {"points": [{}, {"customdata": "head:2"}]}}, (2,)),
        ({"selection": {"points": [{"customdata": "pair:1:2"}]}}, None),
        ({"selection": {"points": [{"customdata": "head:x"}]}}, None),
        ({"selection": {"points": []}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_picks(event: object, expected: tuple[int, ...] | None) -> None:
    assert picked(event, "head") == expected


def test_figures_are_plain_json(demo: Measurement) -> None:
    figure = draw(random_divergence(64), 0.69, going=set(range(10)), per_group=8, selected=1)
    assert "NaN" not in figure.to_json()
    assert len(json.loads(figure.to_json())["data"]) < 30
