"""The similarity graph of one block: heads stand still, τ draws and removes edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from app.charts.chart import Series
from app.charts.figure import STILL_LEGEND, Trace, marks, no_axes, picture, ring, trace
from app.charts.graph_edges import HEIGHT, discs, edge_traces
from app.charts.picks import point_id
from app.charts.theme import BLUE, CLEAR, GREEN, KEPT, MARKED, ORANGE, PRUNED, SKY, YELLOW
from pruning.planning.graph import GOES, KEEP, leaving, positions_of

Node = Mapping[str, Any]
"""Attributes of one head, as :mod:`pruning.planning.graph` names them."""
# 5 colours and 4 symbols share no divisor: 20 key/value groups before a look repeats
GROUP_COLOURS = (BLUE, ORANGE, GREEN, SKY, YELLOW)
GROUP_SYMBOLS = ("circle", "square", "diamond", "hexagon")
HOLLOW = "#777F85"
"""Numbers on the page itself: readable on light and on dark."""
RING = 12
"""Pixels by which the ring of the selected head is wider than its node."""


def similarity_chart(
    graph: nx.Graph, *, selected: int | None = None, paper: str | None = None
) -> go.Figure:
    """``graph`` of one block: nodes where they stand, one line per edge.

    The most alike pairs of the block are drawn thickest. Heads that go are hollow with a ✕; shape
    and colour show the key/value group when heads share one. ``paper``: colour of the page; lines
    then pass behind hollow nodes.
    """
    positions, sizes, hollow = positions_of(graph), _sizes(graph), leaving(graph)
    groups = sorted(set(nx.get_node_attributes(graph, "group").values()))
    shared = len(groups) < len(graph)
    traces = edge_traces(graph, sizes, selected)
    if paper and hollow:
        symbols = [_look(graph.nodes[head]["group"], shared)[1] for head in hollow]
        traces.append(discs(positions[hollow], sizes[hollow].tolist(), symbols, paper))
    for members in ([head for head in graph if head not in hollow], hollow):
        if members:
            traces.append(_nodes(graph, members, positions, sizes, shared))
    if hollow:
        traces.append(_crosses(hollow, positions, sizes, selected))
    marked = {head: mark for head, mark in graph.nodes(data="mark") if mark}
    if marked:
        traces.append(_marks(marked, positions, sizes))
    if selected is not None:
        x, y = positions[selected]
        traces.append(ring([x], [y], "selected", sizes[selected] + RING, 3))
    for group in groups if shared else ():
        colour, symbol = _look(group, shared)
        traces.append(
            trace(Series(str(group), [None], [None], [""], colour, symbol=symbol, size=10))
        )
    title = {"text": "key/value group  ", "side": "left"}
    return picture(
        traces,
        height=HEIGHT,
        name="graph",
        showlegend=shared,
        legend={"title": title, "y": -0.02, "yanchor": "top", **STILL_LEGEND},
        margin={"t": 8},
        hovermode="closest",
        **no_axes((-0.07, 1.07), (-0.13, 1.1)),
    )


def similarity_alt(graph: nx.Graph) -> str:
    """The graph in one or two sentences."""
    gone = ", ".join(map(str, leaving(graph)))
    return (
        f"Similarity graph of block {graph.graph['block']}: {len(graph)} heads, "
        f"{graph.number_of_edges()} edges with JS divergence below "
        f"{graph.graph['threshold']:.3f} nats. "
        + (f"Heads that go: {gone}." if gone else "No head goes.")
    )


def _sizes(graph: nx.Graph) -> np.ndarray:
    """Marker sizes in pixels [heads]: the more important, the larger."""
    count = len(graph)
    small, large = (24, 38) if count <= 16 else (19, 28) if count <= 36 else (15, 21)
    ranks = np.array([rank for _, rank in graph.nodes(data="rank")])
    return small + (large - small) * (ranks - 1) / max(count - 1, 1)


def _text_size(count: int) -> int:
    return 13 if count <= 16 else 11 if count <= 36 else 9


def _look(group: int, shared: bool) -> tuple[str, str]:
    if not shared:
        return KEPT, "circle"
    return (GROUP_COLOURS[group % len(GROUP_COLOURS)], GROUP_SYMBOLS[group % len(GROUP_SYMBOLS)])


def _nodes(
    graph: nx.Graph, heads: Sequence[int], positions: np.ndarray, sizes: np.ndarray, shared: bool
) -> Trace:
    """``heads`` that all stay or all go."""
    going = graph.nodes[heads[0]]["decision"] == GOES
    looks = [_look(graph.nodes[head]["group"], shared) for head in heads]
    colours = [colour for colour, _ in looks]
    filled = ["#FFFFFF" if colour == BLUE else "#000000" for colour in colours]
    # after a click Plotly makes what was not clicked faint; one colour for all is what it takes
    after_click = HOLLOW if going else "#000000" if shared else "#FFFFFF"
    return marks(
        positions[heads],
        words=[_hover(head, graph.nodes[head], len(graph), shared) for head in heads],
        picked=after_click,
        mode="markers+text",
        name="goes" if going else "stays",
        text=[str(head) for head in heads],
        textposition="middle center",
        textfont={"size": _text_size(len(graph)), "color": HOLLOW if going else filled},
        marker={
            "size": sizes[heads].tolist(),
            "symbol": [symbol + "-open" * going for _, symbol in looks],
            "color": colours,
            "opacity": 1,
            "line": {"width": 2, "color": colours},
        },
        customdata=[point_id("head", head) for head in heads],
        selected={"marker": {"opacity": 1}},
    )


def _crosses(
    heads: Sequence[int], positions: np.ndarray, sizes: np.ndarray, selected: int | None
) -> Trace:
    """✕ beside every head that goes, outside the ring where that is the selected one."""
    reach = [float(0.6 * sizes[head] + (RING if head == selected else 0)) for head in heads]
    return marks(
        positions[heads],
        picked=PRUNED,
        mode="markers+text",
        name="✕ goes",
        text=["✕"] * len(heads),
        textposition="top right",
        textfont={"size": _text_size(len(sizes)), "color": PRUNED},
        marker={"size": reach, "color": CLEAR},
    )


def _marks(marked: Mapping[int, str], positions: np.ndarray, sizes: np.ndarray) -> Trace:
    """A square frame around ``marked`` heads and the word at their side."""
    heads = list(marked)
    look = {"symbol": "square-open", "color": MARKED, "line": {"width": 2.5}}
    return marks(
        positions[heads],
        picked=HOLLOW,
        mode="markers+text",
        name="marked",
        text=list(marked.values()),
        textposition="bottom center",
        textfont={"size": 11, "color": HOLLOW},
        marker={"size": (sizes[heads] + 9).tolist(), **look},
    )


def _hover(head: int, node: Node, count: int, shared: bool) -> str:
    lines = [f"<b>Head {head}</b>"]
    if shared:
        lines.append(f"key/value group {node['group']}")
    lines.append(
        f"importance {node['importance']:.3g}, rank {node['rank']} of {count} (1 = weakest)"
    )
    if "nearest" in node:
        lines.append(f"nearest: head {node['nearest']}, JS {node['nearest_divergence']:.3f} nats")
    kept = "stays: marked keep by hand" if node["mark"] == KEEP else "stays"
    lines.append(f"✕ goes: {node['reason']}" if node["decision"] == GOES else kept)
    return "<br>".join(lines)
