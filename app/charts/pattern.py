"""Where heads look: the attention map of one head, and those of a whole block to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.charts.chart import Row
from app.charts.figure import Trace, colour_bar, frame, no_axes, picture, still, targets
from app.charts.picks import point_id
from app.charts.theme import SEQUENTIAL, styled
from pruning.planning.analysis import attention_sink_shares

HEIGHT = 400
NAMES_UP_TO = 40
"""More tokens than this leave no room for their names."""

GAP = 3


def pattern_rows(tokens: Sequence[str], probabilities: np.ndarray) -> list[Row]:
    """Where each word piece looks: ``probabilities`` [tokens, tokens] of one head."""
    return [
        {
            "from": place,
            "from_text": tokens[place],
            "to": other,
            "to_text": tokens[other],
            "attention": float(probabilities[place, other]),
        }
        for place in range(len(tokens))
        for other in range(place + 1)  # no head looks ahead
    ]


def pattern_map(pattern: np.ndarray, tokens: tuple[str, ...]) -> go.Figure:
    """``pattern`` [s, s] of one head: rows look at columns, each row sums to 1."""
    count = len(tokens)
    cells: list[list[float | None]] = [[None] * count for _ in tokens]
    for row in pattern_rows(tokens, pattern):
        cells[row["from"]][row["to"]] = round(row["attention"], 4)
    figure = go.Figure(
        _heatmap(
            cells,
            customdata=[[[a, b] for b in tokens] for a in tokens],
            hovertemplate="‘%{customdata[0]}’ looks at ‘%{customdata[1]}’: %{z:.3f}<extra></extra>",
            colorbar=colour_bar("attention"),
        )
    )
    styled(figure, height=HEIGHT, legend=False)
    still(figure, "pattern", margin={"t": 8})
    named = count <= NAMES_UP_TO
    ticks = {
        "tickvals": list(range(count)) if named else list(range(0, count, 8)),
        "ticktext": [_name(token) for token in tokens] if named else None,
        "tickfont": {"size": 10},
        "showgrid": False,
    }
    figure.update_xaxes(**ticks, tickangle=-60, title="looked at", range=[-0.5, count - 0.5])
    figure.update_yaxes(**ticks, title="looks", range=[count - 0.5, -0.5])
    return figure


def _heatmap(cells: Sequence | np.ndarray, **more: Any) -> Trace:
    scale = {"zmin": 0.0, "zmax": 1.0, "colorscale": SEQUENTIAL}
    return {"type": "heatmap", "z": cells, **scale, "hoverongaps": False, **more}


def pattern_alt(block: int, head: int, pattern: np.ndarray, tokens: tuple[str, ...]) -> str:
    """The map in one sentence: what the head mostly does."""
    first, itself, before = attention_sink_shares(pattern)
    return (
        f"Attention map of head {head} of block {block} on {len(tokens)} tokens: "
        f"{first:.0%} of its attention goes to the first token, {before:.0%} to the token just "
        f"before and {itself:.0%} to the token itself."
    )


def block_mosaic(maps: np.ndarray, *, selected: int) -> go.Figure:
    """The maps [heads, s, s] of one block as tiles; clicks carry the ids ``head:number``."""
    heads, size, _ = maps.shape
    columns = int(np.ceil(np.sqrt(heads * 1.3)))
    rows = -(-heads // columns)
    step = size + GAP
    canvas = np.full((rows * step, columns * step), np.nan, dtype=np.float32)
    corners = [
        (head // columns * step + GAP // 2, head % columns * step + GAP // 2)
        for head in range(heads)
    ]
    below = np.tri(size, dtype=bool)
    for (top, left), one in zip(corners, maps, strict=True):
        # the root makes faint patterns visible in a small picture
        canvas[top : top + size, left : left + size] = np.where(below, np.sqrt(one), np.nan)
    top, left = corners[selected]
    return picture(
        [
            _heatmap(canvas, showscale=False, hoverinfo="skip"),
            _targets(maps, corners, size, HEIGHT / rows),
        ],
        height=HEIGHT,
        name="mosaic",
        showlegend=False,
        hovermode="closest",
        margin={"t": 8},
        shapes=[frame((left - 1.2, left + size + 0.2), (top - 1.2, top + size + 0.2))],
        **no_axes((-1.5, columns * step), (rows * step, -1.5)),
    )


def mosaic_alt(block: int, heads: int) -> str:
    """The mosaic in one sentence."""
    return f"Attention maps of the {heads} heads of block {block} side by side, one tile each."


def _targets(maps: np.ndarray, corners: list[tuple[int, int]], size: int, pixels: float) -> Trace:
    heads = range(len(maps))
    return targets(
        [left + size / 2 for _, left in corners],
        [top + size / 2 for top, _ in corners],
        [point_id("head", head) for head in heads],
        [f"head {head}<br>{_habit(maps[head])}" for head in heads],
        size=max(10.0, 0.8 * pixels),
        mode="markers+text",
        name="heads",
        text=[str(head) for head in heads],
        # the upper right half of a tile is empty
        textposition="top right",
        textfont={"size": 13 if len(maps) <= 16 else 10},
    )


def _habit(pattern: np.ndarray) -> str:
    first, itself, before = attention_sink_shares(pattern)
    return f"first token {first:.0%}, the one before {before:.0%}, itself {itself:.0%}"


def _name(token: str) -> str:
    shown = token.replace("\n", "⏎").strip() or "␣"
    return shown if len(shown) <= 9 else shown[:8] + "…"
