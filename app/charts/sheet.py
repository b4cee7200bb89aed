"""Small multiples: the similarity graphs of all blocks on one sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from app.charts.figure import STILL_LEGEND, Trace, frame, marks, no_axes, picture, ring, targets
from app.charts.picks import point_id
from app.charts.theme import KEPT, MARKED, PRUNED
from pruning.artifacts.plan import BY_HAND
from pruning.planning.graph import GOES, count_similar, leaving, positions_of

TILE = 128
"""Height of one block's graph in pixels."""

ORDERS = {"block": "By block", "alike": "Most alike first"}
REASONS = 4
STRENGTHS = 3
STAYS, GONE, DROPPED, KEPT_BY_HAND = "stays", "✕ would go", "◇ marked drop", "■ marked keep"


def ordered(graphs: Sequence[nx.Graph], order: str) -> list[nx.Graph]:
    """The graphs by block, or those with the largest share of alike pairs first."""
    return list(graphs) if order == "block" else sorted(graphs, key=nx.density, reverse=True)


def sheet_of_graphs(
    graphs: Sequence[nx.Graph], *, open_block: int, selected: int | None = None
) -> go.Figure:
    """``graphs`` of blocks in reading order; each is a click target with the id
    ``block:number``."""
    columns = min(8, max(1, len(graphs)))
    rows = -(-len(graphs) // columns)
    corners = np.array(
        [(place % columns, rows - 1 - place // columns) for place in range(len(graphs))],
        dtype=np.float64,
    )
    # room for the caption above each graph
    places = [
        corner + [0.1, 0.08] + [0.8, 0.66] * positions_of(graph)
        for corner, graph in zip(corners, graphs, strict=True)
    ]
    captions = marks(
        corners + [0.08, 0.88],
        mode="text",
        name="captions",
        text=[_caption(graph) for graph in graphs],
        textposition="middle right",
        textfont={"size": 11},
    )
    traces = [*_edge_traces(graphs, places), *_head_traces(graphs, places), captions]
    frames = None
    here = next((n for n, graph in enumerate(graphs) if graph.graph["block"] == open_block), None)
    if here is not None:
        left, bottom = corners[here]
        frames = [frame((left + 0.02, left + 0.98), (bottom + 0.02, bottom + 0.98), 2)]
        if selected is not None and selected < len(places[here]):
            x, y = places[here][selected]
            traces.append(ring([x], [y], "selected", 17, 2.5))
    middles = (corners + 0.5).T.tolist()
    ids = [point_id("block", graph.graph["block"]) for graph in graphs]
    words = [_hover(graph) for graph in graphs]
    traces.append(targets(*middles, ids, words, size=TILE - 12, name="blocks", showlegend=False))
    return picture(
        traces,
        height=rows * TILE + 40,
        name="sheet",
        hovermode="closest",
        legend=STILL_LEGEND,
        shapes=frames,
        **no_axes((0, columns), (0, rows)),
    )


def sheet_alt(graphs: Sequence[nx.Graph]) -> str:
    """The sheet in one or two sentences."""
    most = max(graphs, key=nx.Graph.number_of_edges)
    gone = sum(len(leaving(graph)) for graph in graphs)
    return (
        f"Similarity graphs of {len(graphs)} blocks at {most.graph['threshold']:.3f} nats; {gone} "
        f"heads would go. Block {most.graph['block']} has the most edges, "
        f"{most.number_of_edges()}."
    )


def _edge_traces(graphs: Sequence[nx.Graph], places: Sequence[np.ndarray]) -> list[Trace]:
    """Lines in a few strengths by likeness; typed arrays, since there may be thousands."""
    paths: list[list[np.ndarray]] = [[] for _ in range(STRENGTHS)]
    for graph, points in zip(graphs, places, strict=True):
        edges = np.array(list(graph.edges(data="divergence"))).reshape(-1, 3)
        likeness = 1.0 - edges[:, 2] / max(graph.graph["threshold"], 1e-9)
        strength = np.minimum((likeness * STRENGTHS).astype(int), STRENGTHS - 1)
        path = np.full((len(edges), 3, 2), np.nan, dtype=np.float32)
        path[:, :2] = points[edges[:, :2].astype(int)]
        for level in range(STRENGTHS):
            paths[level].append(path[strength == level].reshape(-1, 2))
    traces: list[Trace] = []
    for level, parts in enumerate(paths):
        lines = np.concatenate(parts)
        if len(lines):
            traces.append(
                {
                    "type": "scatter",
                    "x": lines[:, 0],
                    "y": lines[:, 1],
                    "mode": "lines",
                    "name": "edges",
                    "line": {
                        "color": f"rgba(128,128,128,{0.4 + 0.2 * level:.1f})",
                        "width": 1.0 + 0.7 * level,
                    },
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
    return traces


def _kind(node: Mapping[str, Any]) -> str:
    by_hand = node["criterion"] == BY_HAND
    if node["decision"] == GOES:
        return DROPPED if by_hand else GONE
    return KEPT_BY_HAND if by_hand else STAYS


def _head_traces(graphs: Sequence[nx.Graph], places: Sequence[np.ndarray]) -> list[Trace]:
    kinds: dict[str, list[np.ndarray]] = {name: [] for name in (STAYS, GONE, DROPPED, KEPT_BY_HAND)}
    for graph, points in zip(graphs, places, strict=True):
        for head, node in graph.nodes(data=True):
            kinds[_kind(node)].append(points[head])
    most = max(map(len, graphs))
    size = 9 if most <= 16 else 7 if most <= 36 else 5
    looks = {
        STAYS: {"symbol": "circle", "color": KEPT, "line": {"width": 0}},
        GONE: {"symbol": "circle-x-open", "color": PRUNED, "line": {"width": 1.5}},
        DROPPED: {"symbol": "diamond-x-open", "color": MARKED, "line": {"width": 1.5}},
        KEPT_BY_HAND: {"symbol": "square", "color": KEPT, "line": {"width": 2, "color": MARKED}},
    }
    traces: list[Trace] = []
    for name, points in kinds.items():
        if points:
            xy = np.array(points, dtype=np.float32)
            traces.append(
                {
                    "type": "scatter",
                    "x": xy[:, 0],
                    "y": xy[:, 1],
                    "mode": "markers",
                    "name": f"{name} ({len(xy)})",
                    "marker": {"size": size, "opacity": 1, **looks[name]},
                    "hoverinfo": "skip",
                    "unselected": {"marker": {"opacity": 1}},
                }
            )
    return traces


def _caption(graph: nx.Graph) -> str:
    gone = len(leaving(graph))
    return f"<b>{graph.graph['block']}</b>" + (f"  {gone} of {len(graph)} go" if gone else "")


def _hover(graph: nx.Graph) -> str:
    count, gone = count_similar(graph), leaving(graph)
    lines = [
        f"<b>Block {graph.graph['block']}</b>: {count.edges} edges, {count.groups} groups of "
        "alike heads",
        *(f"✕ head {head}: {graph.nodes[head]['reason']}" for head in gone[:REASONS]),
    ]
    if len(gone) > REASONS:
        lines.append(f"and {len(gone) - REASONS} more heads")
    return "<br>".join(lines if gone else [*lines, "no head would go"])
