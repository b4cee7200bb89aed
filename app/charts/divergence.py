"""Heatmap of the divergence between the heads of one block."""

from __future__ import annotations

from math import isnan

import numpy as np
import plotly.graph_objects as go

from app.charts.picks import point_id
from app.charts.theme import SELECTED, SEQUENTIAL, styled

LN2 = float(np.log(2.0))
HEIGHT = 365
NUMBERS_UP_TO = 12
"""More heads than this leave no room for a number in each cell."""


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
    figure = go.Figure(_cells(shown, labels))
    figure.add_trace(_dots(shown, threshold, count))
    figure.add_trace(_targets(divergence, threshold))
    if selected is not None:
        figure.add_shape(
            type="rect",
            x0=-0.5,
            x1=count - 0.5,
            y0=selected - 0.5,
            y1=selected + 0.5,
            line={"color": SELECTED, "width": 3 if count <= 40 else 1.5},
        )
    styled(figure, height=HEIGHT, legend=False)
    figure.update_layout(
        dragmode=False,
        hovermode="closest",
        uirevision="divergence",
        # fixed: to find them out would draw everything twice
        margin={"t": 8, "l": 48, "r": 84, "b": 48},
    )
    step = 1 if count <= 16 else 4 if count <= 40 else 8
    axis = {
        "range": [-0.5, count - 0.5],
        "tickvals": labels[::step],
        "ticktext": [str(label) for label in labels[::step]],
        "showgrid": False,
        "fixedrange": True,
        "automargin": False,
        "title": {"text": "head", "standoff": 10},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**{**axis, "range": [count - 0.5, -0.5]})
    return figure


def divergence_alt(block: int, divergence: np.ndarray, threshold: float) -> str:
    """The heatmap in one sentence."""
    pairs = divergence[np.triu_indices(len(divergence), 1)]
    if not len(pairs):
        return f"Block {block} has one head, so there is nothing to compare."
    return (
        f"Heatmap of the JS divergence between the {len(divergence)} heads of block {block}: "
        f"from {pairs.min():.3f} to {pairs.max():.3f} nats, {int((pairs < threshold).sum())} of "
        f"{len(pairs)} pairs below {threshold:.3f}."
    )


def _cells(shown: np.ndarray, labels: list[int]) -> go.Heatmap:
    values = [[None if isnan(v) else round(v, 4) for v in row] for row in shown.tolist()]
    numbers = len(labels) <= NUMBERS_UP_TO
    return go.Heatmap(
        z=values,
        x=labels,
        y=labels,
        zmin=0.0,
        zmax=LN2,
        # reversed: alike pairs, the ones to look at, are bright
        colorscale=f"{SEQUENTIAL}_r",
        text=[[_number(value) for value in row] for row in values] if numbers else None,
        texttemplate="%{text}" if numbers else None,
        textfont={"size": 12},
        hoverinfo="skip",
        hoverongaps=False,
        xgap=1 if len(labels) <= 40 else 0,
        ygap=1 if len(labels) <= 40 else 0,
        colorbar={
            "title": {"text": "JS divergence (nats)", "side": "right"},
            "tickvals": [0.0, 0.2, 0.4, 0.6, LN2],
            "ticktext": ["0", "0.2", "0.4", "0.6", "ln 2"],
            "thickness": 12,
            "outlinewidth": 0,
        },
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    # the upper half of the scale is dark
    colour = "#000000" if value < 0.55 * LN2 else "#FFFFFF"
    return f'<span style="color:{colour}">{value:.2f}</span>'


def _dots(shown: np.ndarray, threshold: float, count: int) -> go.Scatter:
    rows, columns = np.nonzero(np.nan_to_num(shown, nan=np.inf) < threshold)
    shift = 0.33 if count <= NUMBERS_UP_TO else 0.0
    return go.Scatter(
        x=(columns + shift).tolist(),
        y=(rows - shift).tolist(),
        mode="markers",
        name="below τ",
        marker={
            "size": 7 if count <= 16 else 5 if count <= 40 else 3,
            "color": "#FFFFFF",
            "line": {"color": "#000000", "width": 1},
            "opacity": 1,
        },
        hoverinfo="skip",
        unselected={"marker": {"opacity": 1}},
    )


def _targets(divergence: np.ndarray, threshold: float) -> go.Scatter:
    count = len(divergence)
    rows, columns = np.nonzero(~np.eye(count, dtype=bool))
    values = divergence[rows, columns].tolist()
    rows, columns = rows.tolist(), columns.tolist()
    return go.Scatter(
        x=columns,
        y=rows,
        mode="markers",
        name="pairs",
        marker={"symbol": "square", "size": max(6, 300 // count), "opacity": 0},
        customdata=[point_id("pair", i, j) for i, j in zip(rows, columns, strict=True)],
        hovertext=[
            f"heads {i} and {j}<br>JS {value:.3f} nats{', below τ' if value < threshold else ''}"
            for i, j, value in zip(rows, columns, values, strict=True)
        ],
        hoverinfo="text",
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
    )
