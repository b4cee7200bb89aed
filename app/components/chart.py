"""Charts on a page: figure, text alternative, what a click does, and what a chart is saved as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from app.charts.chart import Chart
from app.charts.figure import figure

PICTURE = "theme.picture"
"""Where the session keeps the kind of file that a chart is saved as."""
PICTURES = {"svg": "SVG", "png": "PNG"}


def show_chart(
    chart: Chart,
    name: str,
    key: str,
    *,
    open_block: int | None = None,
    drawn: go.Figure | None = None,
    **select: Any,
) -> None:
    """Shows ``chart``, or the figure ``drawn`` of it by other means. ``name``: of the file that it
    is saved as; ``select``: what a click does, as ``st.plotly_chart`` takes it."""
    drawn = figure(chart, open_block=open_block) if drawn is None else drawn
    st.plotly_chart(drawn, config=chart_config(name), key=key, alt=chart.alt, **select)


def show_figure(
    drawn: go.Figure, alt: str, name: str, key: str, on_pick: Callable[[str], None] | None = None
) -> None:
    """Shows a figure and what it says in words; ``on_pick(key)`` is called after a click on one of
    its points. ``name``: see :func:`show_chart`."""
    select: dict[str, Any] = {}
    if on_pick is not None:
        select = {"on_select": lambda: on_pick(key), "selection_mode": "points"}
    st.plotly_chart(drawn, config=chart_config(name), key=key, alt=alt, **select)


def chart_config(name: str) -> dict[str, Any]:
    """Passed as ``config=``: one button, which shows under the mouse or when the keyboard is on it,
    and saves the chart as ``headroom-name``."""
    kind = st.session_state.get(PICTURE, "svg")
    picture = {"format": kind, "filename": f"headroom-{name}", "scale": 2 if kind == "png" else 1}
    return {
        "displaylogo": False,
        "scrollZoom": False,
        "modeBarButtons": [["toImage"]],
        "toImageButtonOptions": picture,
    }


def paper() -> str:
    """The page's own background. What is hollow is filled with it, so that lines pass behind."""
    return st.get_option(f"theme.{st.context.theme.type or 'light'}.backgroundColor")
