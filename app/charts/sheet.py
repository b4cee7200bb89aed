"""Small multiples: the similarity graphs of all blocks on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from app.charts.picks import point_id
from app.charts.theme import CLEAR, KEPT, MARKED, PRUNED, SELECTED, styled
from pruning.artifacts.plan import BY_HAND, ModulePlan
from pruning.planning.analysis import SimilarityCount

TILE = 128
"""Height of one block's graph in pixels."""

ORDERS = {"block": "By block", "alike": "Most alike first"}
REASONS = 4
STRENGTHS = 3
STAYS, GOES, DROPPED, KEPT_BY_HAND = "stays", "✕ would go", "◇ marked drop", "■ marked keep"


@dataclass(frozen=True)
class Tile:
    """One block on the sheet. ``positions`` [heads, 2] in the unit square; ``divergence``
    [heads, heads] in nats."""

    block: int
    positions: np.ndarray
    divergence: np.ndarray
    module: ModulePlan
    count: SimilarityCount


def ordered(tiles: Sequence[Tile], order: str) -> list[Tile]:
    """The tiles by block, or those with the largest share of alike pairs first."""
    if order == "block":
        return list(tiles)
    pairs = {t.block: max(t.module.units * (t.module.units - 1), 1) for t in tiles}
    return sorted(tiles, key=lambda t: (-t.count.edges / pairs[t.block], t.block))


def sheet_of_graphs(
    tiles: Sequence[Tile], threshold: float, *, open_block: int, selected: int | None = None
) -> go.Figure:
    """``tiles`` in reading order; each is a click target with the id ``block:number``."""
    columns = min(8, max(1, len(tiles)))
    rows = -(-len(tiles) // columns)
    corners = np.array(
        [(place % columns, rows - 1 - place // columns) for place in range(len(tiles))],
        dtype=np.float64,
    )
    # room for the caption above each graph
    places = [
        c + [0.1, 0.08] + [0.8, 0.66] * t.positions for c, t in zip(corners, tiles, strict=True)
    ]
    figure = go.Figure([*_edge_traces(tiles, places, threshold), *_head_traces(tiles, places)])
    figure.add_trace(_captions(tiles, corners))
    here = next((n for n, tile in enumerate(tiles) if tile.block == open_block), None)
    if here is not None:
        left, bottom = corners[here]
        figure.add_shape(
            type="rect",
            x0=left + 0.02,
            x1=left + 0.98,
            y0=bottom + 0.02,
            y1=bottom + 0.98,
            line={"color": SELECTED, "width": 2},
        )
        if selected is not None and selected < len(places[here]):
            figure.add_trace(_ring(places[here][selected]))
    figure.add_trace(_targets(tiles, corners))
    styled(figure, height=rows * TILE + 40)
    figure.update_layout(
        dragmode=False,
        hovermode="closest",
        uirevision="sheet",
        legend={"itemclick": False, "itemdoubleclick": False},
    )
    figure.update_xaxes(visible=False, range=[0, columns], fixedrange=True)
    figure.update_yaxes(visible=False, range=[0, rows], fixedrange=True)
    return figure


def sheet_alt(tiles: Sequence[Tile], threshold: float) -> str:
    """The sheet in one or two sentences."""
    most = max(tiles, key=lambda tile: tile.count.edges)
    gone = sum(len(tile.module.removed) for tile in tiles)
    return (
        f"Similarity graphs of {len(tiles)} blocks at {threshold:.3f} nats; {gone} heads would go. "
        f"Block {most.block} has the most edges, {most.count.edges}."
    )


def _edge_traces(
    tiles: Sequence[Tile], places: Sequence[np.ndarray], threshold: float
) -> list[go.Scatter]:
    """Lines in a few strengths by likeness; typed arrays, since there may be thousands."""
    paths: list[list[np.ndarray]] = [[] for _ in range(STRENGTHS)]
    for tile, points in zip(tiles, places, strict=True):
        first, second = np.nonzero(np.triu(tile.divergence < threshold, 1))
        likeness = 1.0 - tile.divergence[first, second] / max(threshold, 1e-9)
        strength = np.minimum((likeness * STRENGTHS).astype(int), STRENGTHS - 1)
        path = np.full((len(first), 3, 2), np.nan, dtype=np.float32)
        path[:, 0], path[:, 1] = points[first], points[second]
        for level in range(STRENGTHS):
            paths[level].append(path[strength == level].reshape(-1, 2))
    traces = []
    for level, parts in enumerate(paths):
        lines = np.concatenate(parts)
        if len(lines):
            traces.append(
                go.Scatter(
                    x=lines[:, 0],
                    y=lines[:, 1],
                    mode="lines",
                    name="edges",
                    line={
                        "color": f"rgba(128,128,128,{0.4 + 0.2 * level:.1f})",
                        "width": 1.0 + 0.7 * level,
                    },
                    hoverinfo="skip",
                    showlegend=False,
                )
            )
    return traces


def _head_traces(tiles: Sequence[Tile], places: Sequence[np.ndarray]) -> list[go.Scatter]:
    kinds: dict[str, list[np.ndarray]] = {name: [] for name in (STAYS, GOES, DROPPED, KEPT_BY_HAND)}
    for tile, points in zip(tiles, places, strict=True):
        kind = dict.fromkeys(range(tile.module.units), STAYS)
        kind |= dict.fromkeys(tile.module.held, KEPT_BY_HAND)
        for head, criterion in zip(tile.module.removed, tile.module.criteria, strict=True):
            kind[head] = DROPPED if criterion == BY_HAND else GOES
        for head, name in kind.items():
            kinds[name].append(points[head])
    most = max(tile.module.units for tile in tiles)
    size = 9 if most <= 16 else 7 if most <= 36 else 5
    looks = {
        STAYS: {"symbol": "circle", "color": KEPT, "line": {"width": 0}},
        GOES: {"symbol": "circle-x-open", "color": PRUNED, "line": {"width": 1.5}},
        DROPPED: {"symbol": "diamond-x-open", "color": MARKED, "line": {"width": 1.5}},
        KEPT_BY_HAND: {"symbol": "square", "color": KEPT, "line": {"width": 2, "color": MARKED}},
    }
    traces = []
    for name, points in kinds.items():
        if points:
            xy = np.array(points, dtype=np.float32)
            traces.append(
                go.Scatter(
                    x=xy[:, 0],
                    y=xy[:, 1],
                    mode="markers",
                    name=f"{name} ({len(xy)})",
                    marker={"size": size, "opacity": 1, **looks[name]},
                    hoverinfo="skip",
                    unselected={"marker": {"opacity": 1}},
                )
            )
    return traces


def _captions(tiles: Sequence[Tile], corners: np.ndarray) -> go.Scatter:
    return go.Scatter(
        x=corners[:, 0] + 0.08,
        y=corners[:, 1] + 0.88,
        mode="text",
        name="captions",
        text=[_caption(tile) for tile in tiles],
        textposition="middle right",
        textfont={"size": 11},
        hoverinfo="skip",
        showlegend=False,
    )


def _caption(tile: Tile) -> str:
    gone = len(tile.module.removed)
    return f"<b>{tile.block}</b>" + (f"  {gone} of {tile.module.units} go" if gone else "")


def _targets(tiles: Sequence[Tile], corners: np.ndarray) -> go.Scatter:
    return go.Scatter(
        x=corners[:, 0] + 0.5,
        y=corners[:, 1] + 0.5,
        mode="markers",
        name="blocks",
        marker={"symbol": "square", "size": TILE - 12, "color": CLEAR, "opacity": 0},
        customdata=[point_id("block", tile.block) for tile in tiles],
        hovertext=[_hover(tile) for tile in tiles],
        hoverinfo="text",
        showlegend=False,
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
    )


def _hover(tile: Tile) -> str:
    count, reasons = tile.count, list(tile.module.reasons().items())
    lines = [
        f"<b>Block {tile.block}</b>: {count.edges} edges, {count.groups} groups of alike heads",
        *(f"✕ head {head}: {reason}" for head, reason in reasons[:REASONS]),
    ]
    if len(reasons) > REASONS:
        lines.append(f"and {len(reasons) - REASONS} more heads")
    return "<br>".join(lines if reasons else [*lines, "no head would go"])


def _ring(place: np.ndarray) -> go.Scatter:
    return go.Scatter(
        x=[float(place[0])],
        y=[float(place[1])],
        mode="markers",
        name="selected",
        marker={"size": 17, "symbol": "circle-open", "color": SELECTED, "line": {"width": 2.5}},
        hoverinfo="skip",
        showlegend=False,
    )
