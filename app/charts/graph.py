"""The similarity graph of one block: heads stand still, τ draws and removes edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from app.charts.graph_edges import HEIGHT, Pair, discs, edge_traces
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

# 5 colours and 4 symbols share no divisor: 20 key/value groups before a look repeats
GROUP_COLOURS = (BLUE, ORANGE, GREEN, SKY, YELLOW)
GROUP_SYMBOLS = ("circle", "square", "diamond", "hexagon")
HOLLOW = "#777F85"
"""Numbers on the page itself: readable on light and on dark."""
RING = 12
"""Pixels by which the ring of the selected head is wider than its node."""


@dataclass(frozen=True)
class HeadNode:
    """One head as the graph shows it; ``rank`` 1 = weakest, ``reason`` None = it stays;
    ``mark``: keep or drop, by hand."""

    head: int
    group: int
    importance: float
    rank: int
    nearest: int | None
    divergence: float | None
    reason: str | None
    mark: str | None = None


def similarity_graph(
    positions: np.ndarray,
    pairs: Sequence[Pair],
    nodes: Sequence[HeadNode],
    *,
    scale: tuple[float, float],
    selected: int | None = None,
    paper: str | None = None,
) -> go.Figure:
    """Nodes at ``positions`` [heads, 2], one line per pair of ``pairs`` (those below τ).

    ``scale``: smallest and largest divergence (nats) of the block; the most alike pairs are
    drawn thickest. Heads that go are hollow with a ✕; shape and colour show the key/value
    group when heads share one. ``paper``: colour of the page; lines then pass behind hollow nodes.
    """
    figure = go.Figure()
    sizes = _sizes(len(nodes), [node.rank for node in nodes])
    for trace in edge_traces(positions, pairs, sizes, scale, selected):
        figure.add_trace(trace)
    shared = len({node.group for node in nodes}) < len(nodes)
    hollow = [node.head for node in nodes if node.reason is not None]
    if paper and hollow:
        symbols = [_look(nodes[head].group, shared)[1] for head in hollow]
        figure.add_trace(discs(positions[hollow], sizes[hollow].tolist(), symbols, paper))
    _add_nodes(figure, positions, nodes, sizes, shared)
    _add_crosses(figure, positions, nodes, sizes, selected)
    marked = [node for node in nodes if node.mark]
    if marked:
        figure.add_trace(_marks(positions, marked, sizes))
    if selected is not None:
        figure.add_trace(_ring(positions[selected], sizes[selected]))
    if shared:
        _add_group_legend(figure, sorted({node.group for node in nodes}))
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
    figure.update_yaxes(visible=False, range=[-0.09, 1.1], fixedrange=True)
    return figure


def graph_alt(
    block: int, pairs: Sequence[Pair], nodes: Sequence[HeadNode], threshold: float
) -> str:
    """The graph in one or two sentences."""
    going = [str(node.head) for node in nodes if node.reason]
    gone = f"Heads that go: {', '.join(going)}." if going else "No head goes."
    return (
        f"Similarity graph of block {block}: {len(nodes)} heads, {len(pairs)} edges with "
        f"JS divergence below {threshold:.3f} nats. {gone}"
    )


def _sizes(count: int, ranks: Sequence[int]) -> np.ndarray:
    """Marker sizes in pixels [heads]: the more important, the larger."""
    small, large = (24, 38) if count <= 16 else (19, 28) if count <= 36 else (15, 21)
    return small + (large - small) * (np.array(ranks) - 1) / max(count - 1, 1)


def _text_size(count: int) -> int:
    return 13 if count <= 16 else 11 if count <= 36 else 9


def _look(group: int, shared: bool) -> tuple[str, str]:
    if not shared:
        return KEPT, "circle"
    return (GROUP_COLOURS[group % len(GROUP_COLOURS)], GROUP_SYMBOLS[group % len(GROUP_SYMBOLS)])


def _add_nodes(
    figure: go.Figure,
    positions: np.ndarray,
    nodes: Sequence[HeadNode],
    sizes: np.ndarray,
    shared: bool,
) -> None:
    for going in (False, True):
        members = [node for node in nodes if (node.reason is not None) == going]
        if not members:
            continue
        heads = [node.head for node in members]
        looks = [_look(node.group, shared) for node in members]
        colours = [colour for colour, _ in looks]
        font = {"size": _text_size(len(nodes))}
        filled = ["#FFFFFF" if colour == BLUE else "#000000" for colour in colours]
        font["color"] = HOLLOW if going else filled
        # after a click Plotly makes what was not clicked faint; one colour for all is what it takes
        after_click = HOLLOW if going else "#000000" if shared else "#FFFFFF"
        figure.add_trace(
            go.Scatter(
                x=positions[heads, 0].tolist(),
                y=positions[heads, 1].tolist(),
                mode="markers+text",
                name="goes" if going else "stays",
                text=[str(head) for head in heads],
                textposition="middle center",
                textfont=font,
                marker={
                    "size": sizes[heads].tolist(),
                    "symbol": [symbol + "-open" * going for _, symbol in looks],
                    "color": colours,
                    "opacity": 1,
                    "line": {"width": 2, "color": colours},
                },
                customdata=[point_id("head", head) for head in heads],
                hovertext=[_hover(node, len(nodes), shared) for node in members],
                hoverinfo="text",
                showlegend=False,
                unselected=_as_before(after_click),
                selected={"marker": {"opacity": 1}},
            )
        )


def _as_before(text: str) -> dict[str, dict]:
    """How points look that a click did not pick: like all others."""
    return {"marker": {"opacity": 1}, "textfont": {"color": text}}


def _add_crosses(
    figure: go.Figure,
    positions: np.ndarray,
    nodes: Sequence[HeadNode],
    sizes: np.ndarray,
    selected: int | None,
) -> None:
    """✕ beside every head that goes, outside the ring where that is the selected one."""
    heads = [node.head for node in nodes if node.reason is not None]
    if not heads:
        return
    reach = [float(0.6 * sizes[head] + (RING if head == selected else 0)) for head in heads]
    figure.add_trace(
        go.Scatter(
            x=positions[heads, 0].tolist(),
            y=positions[heads, 1].tolist(),
            mode="markers+text",
            text=["✕"] * len(heads),
            textposition="top right",
            textfont={"size": _text_size(len(nodes)), "color": PRUNED},
            marker={"size": reach, "color": CLEAR},
            hoverinfo="skip",
            unselected=_as_before(PRUNED),
            name="✕ goes",
            showlegend=False,
        )
    )


def _marks(positions: np.ndarray, marked: Sequence[HeadNode], sizes: np.ndarray) -> go.Scatter:
    """A square frame around marked heads and the word at their side."""
    heads = [node.head for node in marked]
    return go.Scatter(
        x=positions[heads, 0].tolist(),
        y=positions[heads, 1].tolist(),
        mode="markers+text",
        name="marked",
        text=[node.mark for node in marked],
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


def _hover(node: HeadNode, count: int, shared: bool) -> str:
    lines = [f"<b>Head {node.head}</b>"]
    if shared:
        lines.append(f"key/value group {node.group}")
    lines.append(f"importance {node.importance:.3g}, rank {node.rank} of {count} (1 = weakest)")
    if node.nearest is not None:
        lines.append(f"nearest: head {node.nearest}, JS {node.divergence:.3f} nats")
    kept = "stays: marked keep by hand" if node.mark == "keep" else "stays"
    lines.append(f"✕ goes: {node.reason}" if node.reason else kept)
    return "<br>".join(lines)
