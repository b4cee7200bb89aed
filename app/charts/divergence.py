"""Heatmap of the divergence between the heads of one block."""

from __future__ import annotations

from math import isnan

import numpy as np
import plotly.graph_objects as go

from app.charts.chart import Row
from app.charts.figure import Trace, colour_bar, frame, marks, picture, targets
from app.charts.picks import point_id
from app.charts.theme import REVERSED

LN2 = float(np.log(2.0))
HEIGHT = 365
NUMBERS_UP_TO = 12
"""More heads than this leave no room for a number in each cell."""


def pair_rows(divergence: np.ndarray) -> list[Row]:
    """JS divergence in nats of every two heads of a block, from ``divergence`` [heads, heads]."""
    first, second = np.triu_indices(len(divergence), 1)
    values = divergence[first, second]
    return [
        {"head": i, "other": j, "divergence_nats": value}
        for i, j, value in zip(first.tolist(), second.tolist(), values.tolist(), strict=True)
    ]


def divergence_heatmap(
    divergence: np.ndarray, threshold: float, *, selected: int | None = None
) -> go.Figure:
    """``divergence`` [heads, heads] in nats on the full scale 0..ln 2; a dot where D < τ.

    Clicks land on an invisible layer of points, ids ``pair:row:column``.
    """
    count = divergence.shape[0]
    shown = divergence.astype(np.float64).copy()
    np.fill_diagonal(shown, np.nan)  # zero by definition: says nothing
    labels = list(range(count))
    step = 1 if count <= 16 else 4 if count <= 40 else 8
    axis = {
        "tickvals": labels[::step],
        "ticktext": [str(label) for label in labels[::step]],
        "showgrid": False,
        "automargin": False,
        "title": {"text": "head", "standoff": 10},
    }
    row = (-0.5, count - 0.5)
    return picture(
        [_cells(shown, labels), _dots(shown, threshold, count), _targets(divergence, threshold)],
        height=HEIGHT,
        name="divergence",
        showlegend=False,
        hovermode="closest",
        # fixed margins: to find them out would draw everything twice
        margin={"t": 8, "l": 48, "r": 84, "b": 48},
        xaxis={**axis, "range": row},
        yaxis={**axis, "range": row[::-1]},
        shapes=None
        if selected is None
        else [frame(row, (selected - 0.5, selected + 0.5), 3 if count <= 40 else 1.5)],
    )


def divergence_alt(block: int, divergence: np.ndarray, threshold: float) -> str:
    """The heatmap in one sentence."""
    pairs = [row["divergence_nats"] for row in pair_rows(divergence)]
    if not pairs:
        return f"Block {block} has one head, so there is nothing to compare."
    return (
        f"Heatmap of the JS divergence between the {len(divergence)} heads of block {block}: "
        f"from {min(pairs):.3f} to {max(pairs):.3f} nats, "
        f"{sum(value < threshold for value in pairs)} of {len(pairs)} pairs below {threshold:.3f}."
    )


def _cells(shown: np.ndarray, labels: list[int]) -> Trace:
    values = [[None if isnan(v) else round(v, 4) for v in row] for row in shown.tolist()]
    numbers = len(labels) <= NUMBERS_UP_TO
    return {
        "type": "heatmap",
        "z": values,
        "x": labels,
        "y": labels,
        "zmin": 0.0,
        "zmax": LN2,
        # reversed: alike pairs, the ones to look at, are bright
        "colorscale": REVERSED,
        "text": [[_number(value) for value in row] for row in values] if numbers else None,
        "texttemplate": "%{text}" if numbers else None,
        "textfont": {"size": 12},
        "hoverinfo": "skip",
        "hoverongaps": False,
        "xgap": 1 if len(labels) <= 40 else 0,
        "ygap": 1 if len(labels) <= 40 else 0,
        "colorbar": colour_bar(
            "JS divergence (nats)",
            tickvals=[0.0, 0.2, 0.4, 0.6, LN2],
            ticktext=["0", "0.2", "0.4", "0.6", "ln 2"],
        ),
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    # the upper half of the scale is dark
    colour = "#000000" if value < 0.55 * LN2 else "#FFFFFF"
    return f'<span style="color:{colour}">{value:.2f}</span>'


def _dots(shown: np.ndarray, threshold: float, count: int) -> Trace:
    rows, columns = np.nonzero(np.nan_to_num(shown, nan=np.inf) < threshold)
    shift = 0.33 if count <= NUMBERS_UP_TO else 0.0
    return marks(
        np.column_stack([columns + shift, rows - shift]),
        name="below τ",
        marker={
            "size": 7 if count <= 16 else 5 if count <= 40 else 3,
            "color": "#FFFFFF",
            "line": {"color": "#000000", "width": 1},
            "opacity": 1,
        },
    )


def _targets(divergence: np.ndarray, threshold: float) -> Trace:
    count = len(divergence)
    rows, columns = np.nonzero(~np.eye(count, dtype=bool))
    values = divergence[rows, columns].tolist()
    rows, columns = rows.tolist(), columns.tolist()
    return targets(
        columns,
        rows,
        [point_id("pair", i, j) for i, j in zip(rows, columns, strict=True)],
        [
            f"heads {i} and {j}<br>JS {value:.3f} nats{', below τ' if value < threshold else ''}"
            for i, j, value in zip(rows, columns, values, strict=True)
        ],
        name="pairs",
        size=max(6, 300 // count),
    )
