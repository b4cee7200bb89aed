"""Colours and the common look of charts; readable on light and on dark backgrounds."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

# Okabe and Ito's palette: tells categories apart under every common colour blindness.
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#8C8C8C"
CATEGORIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW)

# Roles. Colour is never alone: pruned is also hollow or ✕, marked and selected have outlines.
KEPT = BLUE
PRUNED = VERMILLION
MARKED = ORANGE
SELECTED = PURPLE
ATTENTION = BLUE
FFN = ORANGE
BEFORE = GREY

SEQUENTIAL, REVERSED = (go.Heatmap(colorscale=name).colorscale for name in ("Cividis", "Cividis_r"))
"""Scale for magnitudes (divergence, activation size), and the same with the bright end first;
spelled out, for the browser knows no reversed one by name."""

GRID = "rgba(128,128,128,0.22)"
CLEAR = "rgba(0,0,0,0)"
AXIS = {"gridcolor": GRID, "zeroline": False, "automargin": True}


def look(*, height: int, legend: bool = True) -> dict[str, Any]:
    """The layout that all charts share: quiet grid, tight margins. Text and paper take the theme's
    colours, also where a picture of the chart is saved."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 28, "b": 8},
        "plot_bgcolor": CLEAR,
        "showlegend": legend,
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "title": None},
        "hoverlabel": {"align": "left"},
        "xaxis": AXIS,
        "yaxis": AXIS,
    }


def styled(figure: go.Figure, *, height: int, legend: bool = True) -> go.Figure:
    """``figure`` with the :func:`look` of all charts."""
    layout = look(height=height, legend=legend)
    figure.update_xaxes(layout.pop("xaxis"))
    figure.update_yaxes(layout.pop("yaxis"))
    return figure.update_layout(layout)
