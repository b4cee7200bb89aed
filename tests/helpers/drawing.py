"""Divergences, nodes and figures for the tests of the Heads page's charts."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from app.charts.graph import HeadNode, similarity_graph
from app.charts.positions import node_positions
from pruning.planning.analysis import nearest
from pruning.planning.similarity import edges


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
