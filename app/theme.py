"""Colours and the common look of charts; readable on light and on dark backgrounds."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import streamlit as st

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

SEQUENTIAL = "Cividis"
"""Scale for magnitudes (divergence, activation size)."""

GRID = "rgba(128,128,128,0.22)"
CLEAR = "rgba(0,0,0,0)"

CHART_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "scrollZoom": False,
    "modeBarButtons": [["toImage"]],
    "toImageButtonOptions": {"format": "svg", "filename": "headroom"},
}
"""Passed as ``config=``: one button, which shows under the mouse and saves the chart as SVG."""


def paper() -> str:
    """The page's own background. What is hollow is filled with it, so that lines pass behind."""
    return st.get_option(f"theme.{st.context.theme.type or 'light'}.backgroundColor")


def styled(figure: go.Figure, *, height: int, legend: bool = True) -> go.Figure:
    """Transparent background, quiet grid, tight margins; text colours come from the theme."""
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 28, "b": 8},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        showlegend=legend,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "title": None},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True)
    return figure
