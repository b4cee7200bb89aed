"""What one block loses, in large type: its graph of heads and its FFN bar."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from app.charts import theme
from app.charts.graph_edges import discs
from app.charts.recovery import LARGE
from pruning.planning.graph import leaving, positions_of

CORNERS = {
    "top right": (1, 1),
    "top left": (-1, 1),
    "bottom right": (1, -1),
    "bottom left": (-1, -1),
}
TYPICAL_WIDTH = 440
"""Pixels; the browser decides, and a line that ends a little early or late does no harm."""


def heads(
    graph: nx.Graph, *, fresh: bool, height: int = 225, paper: str | None = None
) -> go.Figure:
    """Heads of one block; grey lines are the edges of ``graph``.

    What goes turns hollow with a ✕ and loses its lines; while the decision is ``fresh`` a line
    shows which head it is like. ``paper``: colour of the page; lines then pass behind hollow heads.
    """
    positions, gone = positions_of(graph), leaving(graph)
    left = [head for head in graph if head not in gone]
    box = np.array([TYPICAL_WIDTH, height - 16]) / np.array([1.2, 1.52])
    size = _size(positions * box)
    figure = go.Figure()
    alike = list(graph.subgraph(left).edges)
    figure.add_trace(_lines(positions, alike, "rgba(128,128,128,0.55)", 2.0))
    partners = [(head, graph.nodes[head]["partner"]) for head in gone]
    if fresh and gone:
        likes = [pair for pair in partners if pair[1] >= 0]
        figure.add_trace(_lines(positions, likes, theme.PRUNED, 4.0, clear=0.5 * size / box))
    font = max(10, round(size * 0.42))
    if paper and gone:
        figure.add_trace(discs(positions[gone], [size] * len(gone), ["circle"] * len(gone), paper))
    figure.add_trace(_nodes(positions, left, "stays", "circle", theme.KEPT, size, font))
    figure.add_trace(_nodes(positions, gone, "goes", "circle-open", theme.PRUNED, size, font))
    figure.add_trace(_crosses(positions, gone, size, box))
    theme.styled(figure, height=height, legend=False)
    margin = 0.1 if len(positions) > 1 else 0.6
    figure.update_layout(
        dragmode=False, margin={"t": 8, "b": 8}, hovermode="closest", uirevision="heads"
    )
    figure.update_xaxes(visible=False, range=[-margin, 1 + margin], fixedrange=True)
    figure.update_yaxes(visible=False, range=[-1.8 * margin, 1 + 3.4 * margin], fixedrange=True)
    return figure


def _size(pixels: np.ndarray) -> int:
    """Diameter of the nodes at ``pixels`` [heads, 2]: large, but hardly one over another."""
    count = len(pixels)
    largest, least = (46, 34) if count <= 12 else (34, 25) if count <= 20 else (25, 17)
    if count > 36 or count < 2:
        return 17 if count > 36 else largest
    apart = np.linalg.norm(pixels[:, None] - pixels[None], axis=-1)[np.triu_indices(count, 1)]
    return int(np.clip(apart.min(), least, largest))


def _lines(
    positions: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    colour: str,
    width: float,
    clear: np.ndarray | None = None,
) -> go.Scatter:
    """Lines between nodes; ``clear`` [2], the half axes of a node, keeps them off its number."""
    x, y = [], []
    for first, second in pairs:
        start, end = positions[first], positions[second]
        if clear is not None:
            away = (end - start) / clear
            part = min(1.0 / max(float(np.hypot(*away)), 1e-9), 0.5)
            start, end = start + part * (end - start), end - part * (end - start)
        x += [float(start[0]), float(end[0]), None]
        y += [float(start[1]), float(end[1]), None]
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": colour, "width": width}, hoverinfo="skip"
    )


def _nodes(
    positions: np.ndarray,
    members: Sequence[int],
    name: str,
    symbol: str,
    colour: str,
    size: int,
    font: int,
) -> go.Scatter:
    filled = not symbol.endswith("open")
    return go.Scatter(
        x=positions[members, 0].tolist(),
        y=positions[members, 1].tolist(),
        mode="markers+text",
        name=name,
        text=[str(head) for head in members],
        textposition="middle center",
        textfont={"size": font, "color": "#FFFFFF" if filled else colour},
        marker={
            "size": size,
            "symbol": symbol,
            "color": colour,
            "opacity": 1,
            "line": {"width": 3, "color": colour},
        },
        hovertext=[f"head {head} {name}" for head in members],
        hoverinfo="text",
    )


def _crosses(
    positions: np.ndarray, members: Sequence[int], size: int, box: np.ndarray
) -> go.Scatter:
    """A ✕ beside each number, which must stay readable, where it is farthest from other heads."""
    pixels = positions * box
    beside = []
    for head in members:
        others = np.delete(pixels, head, axis=0)[:, None]
        spots = pixels[head] + 0.65 * size * np.array(list(CORNERS.values()))
        free = np.linalg.norm(others - spots, axis=-1).min(0, initial=float(2 * size))
        beside.append(list(CORNERS)[int(free.argmax())])
    return go.Scatter(
        x=positions[members, 0].tolist(),
        y=positions[members, 1].tolist(),
        mode="markers+text",
        text=["✕"] * len(members),
        textposition=beside,
        textfont={"size": round(size * 0.6), "color": theme.PRUNED},
        marker={"size": round(size * 0.6), "color": theme.CLEAR},
        hoverinfo="skip",
    )


def heads_alt(block: int, graph: nx.Graph) -> str:
    """The graph in one sentence."""
    if not nx.get_node_attributes(graph, "decision"):
        return f"The {len(graph)} heads of block {block}, all still there."
    gone = ", ".join(map(str, leaving(graph))) or "none"
    return f"The {len(graph)} heads of block {block}. Gone: {gone}."


def ffn_bar(units: int, kept: int, height: int = 70) -> go.Figure:
    """One bar: the FFN channels of a block that stay; the hollow rest is gone."""
    share = 100 * kept / units if units else 100.0
    stays, goes = _bar_words(units, kept, share)
    outline = {"color": theme.PRUNED, "width": 2 if kept < units else 0}
    figure = go.Figure()
    figure.add_bar(
        x=[share],
        y=[""],
        orientation="h",
        name="stays",
        marker={
            "color": theme.FFN,
            "pattern": {"shape": "/", "size": 8, "solidity": 0.2, "fillmode": "overlay"},
        },
        text=[stays],
        textposition="inside",
        insidetextanchor="start",
        constraintext="none",
        textangle=0,
        textfont={"size": LARGE + 3, "color": "#000000"},
        hovertemplate="%{x:.1f}% stay<extra></extra>",
    )
    figure.add_bar(
        x=[100 - share],
        y=[""],
        orientation="h",
        name="goes",
        marker={"color": theme.CLEAR, "line": outline},
        text=[goes],
        textposition="inside",
        insidetextanchor="middle",
        constraintext="none",
        textangle=0,
        textfont={"size": LARGE + 3, "color": theme.PRUNED},
        hovertemplate="%{x:.1f}% go<extra></extra>",
    )
    figure.update_layout(barmode="stack", bargap=0.1, uirevision="ffn", dragmode=False)
    theme.styled(figure, height=height, legend=False)
    figure.update_layout(margin={"t": 4, "b": 4})
    figure.update_xaxes(visible=False, range=[0, 100.5], fixedrange=True)
    figure.update_yaxes(visible=False, fixedrange=True)
    return figure


def _bar_words(units: int, kept: int, share: float) -> tuple[str, str]:
    """What the two parts of the bar say; the wide part speaks for one that is too narrow."""
    stays, goes = f"{kept:,} of {units:,}", f"✕ {units - kept:,}" if kept < units else ""
    if share > 78:
        return f"\u2003{stays}\u2003{goes}".rstrip(), ""
    if share < 42:
        return "", f"{stays}\u2003{goes}"
    return f"\u2003{stays}", goes


def ffn_alt(block: int, units: int, kept: int) -> str:
    """The bar in one sentence."""
    return f"Block {block} keeps {kept:,} of its {units:,} FFN channels."
