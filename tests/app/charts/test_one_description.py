"""Figure, SVG, CSV and text alternative are made from one description of a chart."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, replace

import numpy as np
import pytest

from app.charts import activations, plan_map, recovery, runs
from app.charts.chart import Axis, Chart, Series
from app.charts.divergence import divergence_alt, divergence_heatmap, pair_rows
from app.charts.figure import figure
from app.charts.overview import blocks_overview, overview_alt, overview_rows
from app.charts.pattern import pattern_map, pattern_rows
from app.components.csv_export import as_csv
from app.report.svg import svg
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.planning import make_plan
from pruning.planning.graph import count_similar, similarity_graph
from tests.helpers.stand_ins import fake_events
from tests.helpers.synthetic import random_divergence

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plan(demo: Measurement) -> Plan:
    recipe = Recipe().changed(heads={"threshold": 0.1}, ffn={"ratio": 0.25})
    return make_plan(demo, recipe)


@pytest.fixture(scope="module")
def events(plan: Plan) -> list:
    numbers = np.random.default_rng(0).uniform(0.001, 0.5, (len(fake_events(plan)), 2)).tolist()
    return [
        replace(event, error_before=max(pair), error_after=min(pair))
        for event, pair in zip(fake_events(plan), numbers, strict=True)
    ]


def table(chart: Chart) -> list[dict[str, str]]:
    """The CSV of ``chart``, read back."""
    return list(csv.DictReader(io.StringIO(as_csv(chart.rows))))


def drawing(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(svg(chart))


def titles(chart: Chart) -> list[str]:
    """What the SVG says of each mark."""
    return [title.text for title in drawing(chart).iter(f"{SVG}title")]


def hover(chart: Chart) -> list[str]:
    """What the figure says of each mark."""
    words = [text for trace in figure(chart).data for text in trace.hovertext]
    return [text.replace("<br>", "\n") for text in words]


def charts(plan: Plan, events: list) -> list[Chart]:
    return [
        plan_map.block_widths(plan),
        plan_map.ffn_share(plan),
        plan_map.head_map(plan),
        recovery.error_chart(events, range(30)),
    ]


def test_figure_and_svg_say_the_same_of_every_mark(plan, events):
    for chart in charts(plan, events):
        assert hover(chart) == titles(chart) == [w for s in chart.series for w in s.words]
        assert drawing(chart).get("aria-label") == chart.alt
        legend = "".join(drawing(chart).itertext())
        names = [trace.name for trace in figure(chart).data]
        assert all(name in legend for name in names)


def test_widths_are_the_same_in_figure_svg_csv_and_words(plan):
    chart = plan_map.block_widths(plan)
    rows = table(chart)
    for name, unit, series in zip(
        ("heads", "channels"), ("heads", "FFN channels"), figure(chart).data, strict=True
    ):
        kept = [int(row[f"{name}_kept"]) for row in rows]
        every = [int(row[name]) for row in rows]
        assert list(series.y) == [100 * k / e for k, e in zip(kept, every, strict=True)]
        assert f"{sum(kept):,} of {sum(every):,} {unit}" in chart.alt
        for block, (k, e) in enumerate(zip(kept, every, strict=True)):
            assert f"block {block}: {k:,} of {e:,} {unit} kept" in titles(chart)


def test_bars_of_the_svg_are_as_high_as_those_of_the_figure(plan):
    chart = plan_map.block_widths(plan)
    heights = [float(bar.get("height")) for bar in drawing(chart).iter(f"{SVG}rect")]
    values = [value for trace in figure(chart).data for value in trace.y]
    full = (chart.height - 64) / 103 * 100
    assert heights == pytest.approx([full * value / 100 for value in values], abs=0.06)


def test_heads_are_the_same_in_figure_svg_csv_and_words(plan):
    chart = plan_map.head_map(plan)
    rows = table(chart)
    gone = [row for row in rows if row["kept"] == "False"]
    kept, pruned = figure(chart).data
    assert (len(kept.x), len(pruned.x)) == (len(rows) - len(gone), len(gone))
    assert f"{len(gone)} are pruned" in chart.alt and pruned.name == f"pruned ({len(gone)})"
    assert len(list(drawing(chart).iter(f"{SVG}rect"))) == len(kept.x)
    for row in gone:
        words = f"block {row['block']}, head {row['head']}: pruned\n{row['reason']}"
        assert words in titles(chart)


def test_errors_are_the_same_in_figure_svg_csv_and_words(events):
    chart = recovery.error_chart(events, range(30))
    rows = table(chart)
    cut = {trace.name: trace for trace in figure(chart).data}["FFN, cut"]
    own = [row for row in rows if row["module"] == "ffn"]
    assert list(cut.y) == [float(row["error_cut"]) for row in own]
    last = rows[-1]
    for stage in ("cut", "recovered"):
        value = f"{float(last[f'error_{stage}']):.4f}"
        assert f"{value} {stage}" in chart.alt
        assert f"block {last['block']}, FFN, {stage}: {value}" in titles(chart)
    marks = [*drawing(chart).iter(f"{SVG}circle"), *drawing(chart).iter(f"{SVG}rect")]
    assert len(marks) == 2 * len(rows) and len(list(drawing(chart).iter(f"{SVG}polyline"))) == 4


def test_errors_of_nothing_and_of_zero_are_still_a_picture(events):
    zero = [replace(event, error_before=0.0, error_after=0.0) for event in events]
    for some in ([], zero):
        chart = recovery.error_chart(some, range(30))
        assert not list(drawing(chart).iter(f"{SVG}circle")) and len(figure(chart).data) == 4


def test_the_overview_is_the_same_in_figure_csv_and_words(demo, plan):
    anywhere = [np.zeros((len(block.divergence), 2)) for block in demo.blocks]
    counts = [
        count_similar(similarity_graph(block.divergence, 0.1, places))
        for block, places in zip(demo.blocks, anywhere, strict=True)
    ]
    losses = {"attention": [0.25] * 30, "ffn": [0.5] * 30}
    rows = overview_rows(plan, counts, losses)
    drawn = {trace.name: trace for trace in blocks_overview(plan, counts, open_block=0).data}
    for name, column in (("edges", "edges"), ("groups", "groups_alike"), ("gone", "heads_removed")):
        assert list(drawn[name].y) == [row[column] for row in rows]
        assert str(sum(row[column] for row in rows)) in re.findall(
            r"\d+", overview_alt(plan, counts)
        )
    assert rows[3]["loss_curve_ffn_nats"] == 0.5


def test_divergence_is_the_same_in_figure_csv_and_words():
    divergence = random_divergence(9)
    rows = pair_rows(divergence)
    largest = max(rows, key=lambda row: row["divergence_nats"])
    cells = divergence_heatmap(divergence, 0.2).data[0].z
    assert cells[largest["head"]][largest["other"]] == round(largest["divergence_nats"], 4)
    words = divergence_alt(0, divergence, 0.2)
    below = sum(row["divergence_nats"] < 0.2 for row in rows)
    assert f"{largest['divergence_nats']:.3f} nats, {below} of {len(rows)} pairs" in words


def test_attention_is_the_same_in_figure_and_csv():
    pattern = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    cells = pattern_map(pattern, tuple("abcdef")).data[0].z
    for row in pattern_rows(tuple("abcdef"), pattern):
        assert cells[row["from"]][row["to"]] == round(row["attention"], 4)


def test_magnitudes_are_the_same_in_figure_csv_and_words(demo):
    chart = activations.quantile_profile(12, demo.blocks[12].activations)
    rows = [row for row in activations.magnitude_rows(demo) if row["block"] == 12]
    by_place = {row["place"]: row for row in rows}
    drawn = figure(chart).data
    for trace, (place, title) in zip(drawn, activations.PLACES.items(), strict=True):
        assert trace.name == title and trace.y[-1] == by_place[place]["maximum"]
        assert f"maximum {by_place[place]['maximum']:.3g}" in chart.alt
    peak = max(r["maximum"] for r in activations.magnitude_rows(demo) if r["place"] == "ffn")
    assert f"largest {peak:.3g}" in activations.magnitude_alt(demo)


@dataclass(frozen=True)
class Point:
    preset: str
    value: float | None
    perplexity: float | None
    kept: float
    seconds: float = 1.0
    recovery: str | None = None


POINTS = [Point("dense", None, 49.2, 1.0), Point("fast", 0.2, 60.0, 0.8), Point("fast", 0.1, 55, 1)]


def test_sweeps_are_the_same_in_figure_csv_and_words():
    sweep = runs.sweep_lines(POINTS, {"fast": "Fast"}, "share", (0.1, 0.2))
    methods = runs.methods_by_size(POINTS, {"fast": "Fast"})
    for chart in (sweep, methods):
        assert [float(row["perplexity"]) for row in table(chart)] == [49.2, 60.0, 55.0]
        values = {value for trace in figure(chart).data for value in trace.y}
        assert values == {49.2, 60.0, 55.0}
        assert "49.20" in chart.alt and "55.00" in chart.alt
    assert list(figure(sweep).data[0].x) == [0.1, 0.2]


def test_differences_and_clouds_say_their_numbers(demo, plan):
    other = make_plan(demo, Recipe().changed(ffn={"ratio": 0.5}))
    chart = runs.block_differences(plan, other, ("#1", "#2"))
    channels = figure(chart).data[1]
    assert list(channels.y) == [-25.0] * 30 and "-25.0 to -25.0 points" in chart.alt
    cloud = runs.cloud([(1e8, 60.0, "#1", "#1<br>a")], [(2e8, 50.0)], "parameters")
    assert "60.00" in cloud.alt and figure(cloud).data[0].y == (60.0,)


def test_words_of_others_are_no_markup_in_the_svg():
    series = Series("<b>", [0], [1.0], ["<script>"], "#000", bars=True)
    chart = Chart('"<i>', [series], Axis("<u>", (0, 1), {0: "<s>"}), Axis("y", (0, 1), {1: "<p>"}))
    found = drawing(chart)
    assert found.get("aria-label") == '"<i>'
    assert {"<script>", "<u>", "<s>", "<p>"} <= set(found.itertext())
