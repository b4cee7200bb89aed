"""Divergences, nodes and figures for the tests of the Heads page's charts."""

from __future__ import annotations

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from app.charts.graph import similarity_chart
from pruning.planning.graph import GOES, STAYS, similarity_graph
from pruning.planning.layout import head_layout


def make_graph(
    divergence: np.ndarray, tau: float, going: set[int] = frozenset(), per_group: int = 1
) -> nx.Graph:
    graph = similarity_graph(divergence, tau, head_layout(divergence), block=5)
    for head, node in graph.nodes(data=True):
        goes = head in going
        node |= {"group": head // per_group, "importance": 1.0 + head, "rank": head + 1}
        node |= {"mark": "", "decision": GOES if goes else STAYS, "criterion": "similarity" * goes}
        node |= {"reason": f"like head 0, JS 0.1 nats, {head}" * goes, "partner": goes - 1}
    return graph


def draw(
    divergence: np.ndarray,
    tau: float,
    going: set[int] = frozenset(),
    per_group: int = 1,
    **options: object,
) -> go.Figure:
    return similarity_chart(make_graph(divergence, tau, going, per_group), **options)


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
