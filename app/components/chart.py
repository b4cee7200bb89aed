"""A chart on a page: the figure and the text alternative of one description."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import streamlit as st

from app.charts.chart import Chart
from app.charts.figure import figure
from app.charts.theme import chart_config


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
    st.plotly_chart(
        figure(chart, open_block=open_block) if drawn is None else drawn,
        config=chart_config(name),
        key=key,
        alt=chart.alt,
        **select,
    )
