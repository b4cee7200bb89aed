"""Edges of the similarity graph: the more alike two heads are, the thicker the line."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np

from app.charts.figure import Trace, marks
from app.charts.theme import SELECTED
from pruning.planning.graph import positions_of

Pair = tuple[int, int, float]
"""Two heads and their divergence in nats."""
STRENGTHS = 5
HEIGHT = 365
# edges end at the rim of a node, so that hollow ones stay readable (figure of about this width)
TYPICAL_WIDTH = 520


def edge_traces(graph: nx.Graph, sizes: np.ndarray, selected: int | None) -> list[Trace]:
    """At most ``STRENGTHS`` traces by likeness, and one for the edges of the ``selected`` head."""
    positions, pairs = positions_of(graph), list(graph.edges(data="divergence"))
    chosen = [] if selected is None else list(graph.edges(selected, data="divergence"))
    low, high = graph.graph.get("smallest", 0.0), graph.graph.get("largest", 0.0)
    bins: list[list[Pair]] = [[] for _ in range(STRENGTHS)]
    for pair in pairs:
        likeness = 1.0 - (pair[2] - low) / max(high - low, 1e-9)
        bins[min(int(likeness * STRENGTHS), STRENGTHS - 1)].append(pair)
    traces = []
    for place, members in enumerate(bins):
        strength = place / (STRENGTHS - 1)
        grey = f"rgba(128,128,128,{0.25 + 0.5 * strength:.2f})"
        if members:
            traces.append(lines(positions, members, sizes, grey, 1.0 + 3.0 * strength))
    if chosen:
        traces.append(lines(positions, chosen, sizes, SELECTED, 2.0))
    return traces


def lines(
    positions: np.ndarray,
    pairs: Sequence[tuple],
    sizes: np.ndarray,
    colour: str,
    width: float,
    box: tuple[float, float] = (TYPICAL_WIDTH, HEIGHT - 40.0),
) -> Trace:
    """A line from rim to rim for each of ``pairs``, whose first two entries are heads at
    ``positions`` [heads, 2] of ``sizes`` [heads] pixels. ``box``: pixels of the unit square."""
    first, second = (np.array([pair[end] for pair in pairs], dtype=int) for end in (0, 1))
    start, end = positions[first], positions[second]
    length = np.maximum(np.linalg.norm((end - start) * np.array(box), axis=1), 1.0)
    cut_start = np.minimum(sizes[first] / 2 / length, 0.45)[:, None]
    cut_end = np.minimum(sizes[second] / 2 / length, 0.45)[:, None]
    path = np.full((len(pairs), 3, 2), np.nan)
    path[:, 0] = start + (end - start) * cut_start
    path[:, 1] = end - (end - start) * cut_end
    # plotly breaks a line where a coordinate is null
    flat = path.reshape(-1, 2).round(4).astype(object)
    flat[2::3] = None
    return {
        "type": "scatter",
        "x": flat[:, 0].tolist(),
        "y": flat[:, 1].tolist(),
        "mode": "lines",
        "line": {"color": colour, "width": width},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def discs(
    positions: np.ndarray, sizes: Sequence[float], symbols: Sequence[str], colour: str
) -> Trace:
    """Hides the lines behind hollow nodes at ``positions`` [nodes, 2], so that their numbers stay
    readable. Lies between lines and nodes."""
    look = {"size": list(sizes), "symbol": list(symbols), "color": colour, "opacity": 1}
    return marks(positions, marker={**look, "line": {"width": 0}})
