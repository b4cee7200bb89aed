"""What one block loses, in large type: its graph of heads and its FFN bar."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from app.charts import theme
from app.charts.figure import Trace, marks, no_axes, picture, still
from app.charts.graph_edges import discs, lines
from app.charts.recovery import LARGE
from pruning.planning.graph import leaving, positions_of

CORNERS = {
    "top right": (1, 1),
    "top left": (-1, 1),
    "bottom right": (1, -1),
    "bottom left": (-1, -1),
}
HEIGHT = 225
TYPICAL_WIDTH = 440
"""Pixels; the browser decides, and a line that ends a little early or late does no harm."""


def heads(graph: nx.Graph, *, fresh: bool, paper: str | None = None) -> go.Figure:
    """Heads of one block; grey lines are the edges of ``graph``.

    What goes turns hollow with a ✕ and loses its lines; while the decision is ``fresh`` a line
    shows which head it is like. ``paper``: colour of the page; lines then pass behind hollow heads.
    """
    positions, gone = positions_of(graph), leaving(graph)
    left = [head for head in graph if head not in gone]
    box = np.array([TYPICAL_WIDTH, HEIGHT - 16]) / np.array([1.2, 1.76])
    size = _size(positions * box)
    traces = []
    alike = list(graph.subgraph(left).edges)
    whole, clear = np.zeros(len(graph)), np.full(len(graph), size)
    traces.append(lines(positions, alike, whole, "rgba(128,128,128,0.55)", 2.0))
    if fresh and gone:
        partners = [(head, graph.nodes[head]["partner"]) for head in gone]
        likes = [pair for pair in partners if pair[1] >= 0]
        traces.append(lines(positions, likes, clear, theme.PRUNED, 4.0, box))
    font = max(10, round(size * 0.42))
    if paper and gone:
        traces.append(discs(positions[gone], [size] * len(gone), ["circle"] * len(gone), paper))
    traces.append(_nodes(positions, left, "stays", "circle", theme.KEPT, size, font))
    traces.append(_nodes(positions, gone, "goes", "circle-open", theme.PRUNED, size, font))
    traces.append(_crosses(positions, gone, size, box))
    margin = 0.1 if len(positions) > 1 else 0.6
    return picture(
        traces,
        height=HEIGHT,
        name="heads",
        showlegend=False,
        margin={"t": 8, "b": 8},
        hovermode="closest",
        **no_axes((-margin, 1 + margin), (-3.8 * margin, 1 + 3.8 * margin)),
    )


def _size(pixels: np.ndarray) -> int:
    """Diameter of the nodes at ``pixels`` [heads, 2]: large, but hardly one over another."""
    count = len(pixels)
    largest, least = (46, 34) if count <= 12 else (34, 25) if count <= 20 else (25, 17)
    if count > 36 or count < 2:
        return 17 if count > 36 else largest
    apart = np.linalg.norm(pixels[:, None] - pixels[None], axis=-1)[np.triu_indices(count, 1)]
    return int(np.clip(apart.min(), least, largest))


def _nodes(
    positions: np.ndarray,
    members: Sequence[int],
    name: str,
    symbol: str,
    colour: str,
    size: int,
    font: int,
) -> Trace:
    filled = not symbol.endswith("open")
    look = {"size": size, "symbol": symbol, "color": colour, "opacity": 1}
    return marks(
        positions[members],
        words=[f"head {head} {name}" for head in members],
        mode="markers+text",
        name=name,
        text=[str(head) for head in members],
        textposition="middle center",
        textfont={"size": font, "color": "#FFFFFF" if filled else colour},
        marker={**look, "line": {"width": 3, "color": colour}},
    )


def _crosses(positions: np.ndarray, members: Sequence[int], size: int, box: np.ndarray) -> Trace:
    """A ✕ beside each number, which must stay readable, where it is farthest from other heads."""
    pixels = positions * box
    beside = []
    for head in members:
        others = np.delete(pixels, head, axis=0)[:, None]
        spots = pixels[head] + 0.65 * size * np.array(list(CORNERS.values()))
        free = np.linalg.norm(others - spots, axis=-1).min(0, initial=float(2 * size))
        beside.append(list(CORNERS)[int(free.argmax())])
    large = round(size * 0.6)
    return marks(
        positions[members],
        mode="markers+text",
        text=["✕"] * len(members),
        textposition=beside,
        textfont={"size": large, "color": theme.PRUNED},
        marker={"size": large, "color": theme.CLEAR},
    )


def heads_alt(block: int, graph: nx.Graph) -> str:
    """The graph in one sentence."""
    if not nx.get_node_attributes(graph, "decision"):
        return f"The {len(graph)} heads of block {block}, all still there."
    gone = ", ".join(map(str, leaving(graph))) or "none"
    return f"The {len(graph)} heads of block {block}. Gone: {gone}."


def ffn_bar(units: int, kept: int) -> go.Figure:
    """One bar: the FFN channels of a block that stay; the hollow rest is gone."""
    share = 100 * kept / units if units else 100.0
    stays, goes = _bar_words(units, kept, share)
    outline = {"color": theme.PRUNED, "width": 2 if kept < units else 0}
    hatch = {"shape": "/", "size": 8, "solidity": 0.2, "fillmode": "overlay"}
    figure = go.Figure()
    cut = {"color": theme.CLEAR, "line": outline}
    for name, verb, part, words, anchor, colour, marker in (
        ("stays", "stay", share, stays, "start", "#000000", {"color": theme.FFN, "pattern": hatch}),
        ("goes", "go", 100 - share, goes, "middle", theme.PRUNED, cut),
    ):
        figure.add_bar(
            x=[part],
            y=[""],
            orientation="h",
            name=name,
            marker=marker,
            text=[words],
            textposition="inside",
            insidetextanchor=anchor,
            constraintext="none",
            textangle=0,
            textfont={"size": LARGE + 3, "color": colour},
            hovertemplate=f"%{{x:.1f}}% {verb}<extra></extra>",
        )
    theme.styled(figure, height=70, legend=False)
    figure.update_xaxes(visible=False, range=[0, 100.5])
    figure.update_yaxes(visible=False)
    return still(figure, "ffn", barmode="stack", bargap=0.1, margin={"t": 4, "b": 4})


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
