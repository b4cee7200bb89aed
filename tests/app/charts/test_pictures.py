"""Pictures are made without Plotly's checks, so that they follow a slider: here it checks them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
import plotly.io
import pytest

from app.charts import feed
from app.charts.divergence import divergence_heatmap
from app.charts.graph import similarity_chart
from app.charts.overview import blocks_overview
from app.charts.pattern import block_mosaic
from app.charts.sheet import sheet_of_graphs
from app.session.positions import node_positions
from pruning.artifacts.recipe import Recipe
from pruning.planning import make_plan
from pruning.planning.graph import block_graph, count_similar, ring_graph
from tests.helpers.synthetic import measurement

TAU = 0.2


def pictures(heads: int, groups: int, head: int | None) -> Iterator[go.Figure]:
    """Every picture of a small model; with ``head`` picked, also marks by hand and losses."""
    measured = measurement(blocks=2, heads=heads, groups=groups)
    marks = {0: {"keep": [1], "drop": [0]}} if head is not None and heads == groups > 1 else {}
    ratio = {"ratio": 0.4}
    recipe = Recipe.parse({"heads": {"threshold": TAU, **ratio}, "ffn": ratio, "marks": marks})
    plan = make_plan(measured, recipe)
    graphs = [
        block_graph(measured, plan, recipe, index, node_positions(block.divergence))
        for index, block in enumerate(measured.blocks)
    ]
    losses = None if head is None else {"attention": [0.25, 0.5], "ffn": [0.5, 0.0]}
    paper = None if head is None else "#FFFFFF"
    counts = [count_similar(graph) for graph in graphs]
    yield similarity_chart(graphs[0], selected=head, paper=paper)
    yield divergence_heatmap(measured.blocks[0].divergence, TAU, selected=head)
    yield blocks_overview(plan, counts, open_block=0, selected=head, losses=losses)
    yield sheet_of_graphs(graphs, open_block=0, selected=head)
    yield block_mosaic(np.tril(np.full((heads, 6, 6), 0.2, dtype=np.float32)), selected=head or 0)
    yield feed.heads(graphs[0], fresh=head is not None, paper=paper)
    yield feed.heads(ring_graph(heads), fresh=True)


@pytest.mark.parametrize("head", [None, 0])
@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (9, 9), (12, 4), (40, 8)])
def test_plotly_accepts_pictures_and_changes_nothing(
    heads: int, groups: int, head: int | None
) -> None:
    for drawn in pictures(heads, groups, head):
        # to the letter what is sent, but for the order of settings
        checked, sent = (
            json.loads(plotly.io.to_json(figure, validate=False))
            for figure in (go.Figure(drawn.to_dict()), drawn)
        )
        assert checked == sent
