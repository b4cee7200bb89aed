"""The similarity graph of one block: heads stand still, τ draws and removes edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from app.charts.graph_edges import HEIGHT, discs, edge_traces
from app.charts.picks import point_id
from app.charts.theme import (
    BLUE,
    CLEAR,
    GREEN,
    KEPT,
    MARKED,
    ORANGE,
    PRUNED,
    SELECTED,
    SKY,
    YELLOW,
    styled,
)
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
    figure = go.Figure()
    positions, sizes, hollow = positions_of(graph), _sizes(graph), leaving(graph)
    groups = sorted(set(nx.get_node_attributes(graph, "group").values()))
    shared = len(groups) < len(graph)
    for trace in edge_traces(graph, sizes, selected):
        figure.add_trace(trace)
    if paper and hollow:
        symbols = [_look(graph.nodes[head]["group"], shared)[1] for head in hollow]
        figure.add_trace(discs(positions[hollow], sizes[hollow].tolist(), symbols, paper))
    for members in ([head for head in graph if head not in hollow], hollow):
        if members:
            figure.add_trace(_nodes(graph, members, positions, sizes, shared))
    if hollow:
        figure.add_trace(_crosses(hollow, positions, sizes, selected))
    marked = {head: mark for head, mark in graph.nodes(data="mark") if mark}
    if marked:
        figure.add_trace(_marks(marked, positions, sizes))
    if selected is not None:
        figure.add_trace(_ring(positions[selected], sizes[selected]))
    if shared:
        _add_group_legend(figure, groups)
    styled(figure, height=HEIGHT, legend=shared)
    figure.update_layout(
        dragmode=False,
        legend={
            "title": {"text": "key/value group  ", "side": "left"},
            "y": -0.02,
            "yanchor": "top",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        margin={"t": 8},
        hovermode="closest",
        uirevision="graph",
    )
    figure.update_xaxes(visible=False, range=[-0.07, 1.07], fixedrange=True)
    figure.update_yaxes(visible=False, range=[-0.13, 1.1], fixedrange=True)
    return figure


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
) -> go.Scatter:
    """``heads`` that all stay or all go."""
    going = graph.nodes[heads[0]]["decision"] == GOES
    looks = [_look(graph.nodes[head]["group"], shared) for head in heads]
    colours = [colour for colour, _ in looks]
    filled = ["#FFFFFF" if colour == BLUE else "#000000" for colour in colours]
    # after a click Plotly makes what was not clicked faint; one colour for all is what it takes
    after_click = HOLLOW if going else "#000000" if shared else "#FFFFFF"
    return go.Scatter(
        x=positions[heads, 0].tolist(),
        y=positions[heads, 1].tolist(),
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
        hovertext=[_hover(head, graph.nodes[head], len(graph), shared) for head in heads],
        hoverinfo="text",
        showlegend=False,
        unselected=_as_before(after_click),
        selected={"marker": {"opacity": 1}},
    )


def _as_before(text: str) -> dict[str, dict]:
    """How points look that a click did not pick: like all others."""
    return {"marker": {"opacity": 1}, "textfont": {"color": text}}


def _crosses(
    heads: Sequence[int], positions: np.ndarray, sizes: np.ndarray, selected: int | None
) -> go.Scatter:
    """✕ beside every head that goes, outside the ring where that is the selected one."""
    reach = [float(0.6 * sizes[head] + (RING if head == selected else 0)) for head in heads]
    return go.Scatter(
        x=positions[heads, 0].tolist(),
        y=positions[heads, 1].tolist(),
        mode="markers+text",
        text=["✕"] * len(heads),
        textposition="top right",
        textfont={"size": _text_size(len(sizes)), "color": PRUNED},
        marker={"size": reach, "color": CLEAR},
        hoverinfo="skip",
        unselected=_as_before(PRUNED),
        name="✕ goes",
        showlegend=False,
    )


def _marks(marked: Mapping[int, str], positions: np.ndarray, sizes: np.ndarray) -> go.Scatter:
    """A square frame around ``marked`` heads and the word at their side."""
    heads = list(marked)
    return go.Scatter(
        x=positions[heads, 0].tolist(),
        y=positions[heads, 1].tolist(),
        mode="markers+text",
        name="marked",
        text=list(marked.values()),
        textposition="bottom center",
        textfont={"size": 11, "color": HOLLOW},
        unselected=_as_before(HOLLOW),
        marker={
            "size": (sizes[heads] + 9).tolist(),
            "symbol": "square-open",
            "color": MARKED,
            "line": {"width": 2.5},
        },
        hoverinfo="skip",
        showlegend=False,
    )


def _ring(position: np.ndarray, size: float) -> go.Scatter:
    return go.Scatter(
        x=[float(position[0])],
        y=[float(position[1])],
        mode="markers",
        name="selected",
        marker={
            "size": float(size) + RING,
            "symbol": "circle-open",
            "color": SELECTED,
            "line": {"width": 3},
        },
        unselected={"marker": {"opacity": 1}},
        hoverinfo="skip",
        showlegend=False,
    )


def _add_group_legend(figure: go.Figure, groups: Sequence[int]) -> None:
    for group in groups:
        colour, symbol = _look(group, True)
        figure.add_trace(
            go.Scatter(
                x=[None],
                y=[None],
                mode="markers",
                name=str(group),
                marker={"color": colour, "symbol": symbol, "size": 10},
                hoverinfo="skip",
            )
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
