"""Plotly figures: the description of a chart drawn, and what several figures have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.charts import theme
from app.charts.chart import Axis, Chart, Series

Trace = dict[str, Any]
"""A trace as plain data, named by its ``type``. Told as one of Plotly's objects, each is checked
two or three times before it is drawn: most of what a chart would cost."""
STILL_LEGEND = {"itemclick": False, "itemdoubleclick": False}
POWERS = {"type": "log", "exponentformat": "power", "dtick": 1}
"""A log axis with one tick per decade."""


def figure(chart: Chart, *, open_block: int | None = None) -> go.Figure:
    """``chart`` drawn; a frame around ``open_block`` where the chart has it."""
    drawn = go.Figure([trace(series) for series in chart.series])
    gap = {"barmode": "stack"} if chart.stacked else {"barmode": "group", "bargroupgap": 0.05}
    legend = len(chart.series) != 1 or not chart.series[0].bars
    theme.styled(drawn, height=chart.height, legend=legend)
    drawn.update_layout(
        bargap=0.25, legend={"traceorder": "normal"}, margin_t=28 if legend else 8, **gap
    )
    drawn.update_xaxes(**_axis(chart.x))
    drawn.update_yaxes(**_axis(chart.y), zeroline=not chart.y.span)
    if any(isinstance(value, str) for series in chart.series for value in series.x[:1]):
        drawn.update_xaxes(type="category")
    if chart.level is not None:
        line = {"color": theme.PRUNED, "width": 1.5, "dash": "dash"}
        drawn.add_hline(y=chart.level, line=line)
    if open_block is not None and chart.x.span and open_block < chart.x.span[1]:
        frame_block(drawn, open_block)
    return still(drawn) if chart.still else drawn


def trace(series: Series, **more: Any) -> Trace:
    """The marks of ``series``. What a click does not pick keeps its look: frames and rings show
    what is open. ``more``: what only Plotly knows of."""
    common = {
        "x": list(series.x),
        "y": list(series.y),
        "name": series.name,
        "text": list(series.labels) or None,
        "cliponaxis": not series.labels,
        "customdata": list(series.ids) or None,
        "hovertext": [words.replace("\n", "<br>") for words in series.words],
        "hoverinfo": "text",
        "unselected": {"marker": {"opacity": series.opacity}},
        **more,
    }
    marker: dict[str, Any] = {"color": series.colour, "opacity": series.opacity}
    if series.bars:
        each = [series.hatched] if isinstance(series.hatched, bool) else series.hatched
        shapes = ["/" if hatched else "" for hatched in each]
        shape = shapes[0] if len(shapes) == 1 else shapes
        marker["pattern"] = {"shape": shape, "size": 6, "solidity": 0.25, "fillmode": "overlay"}
        if series.outline:
            marker["line"] = {"color": series.outline, "width": 1}
        position = "outside" if series.labels else None
        return {"type": "bar", "marker": marker, "textposition": position, **common}
    mode = [("lines", series.dash), ("markers", series.symbol), ("text", series.labels)]
    lined = series.outline or series.symbol.startswith("x-thin") or series.symbol.endswith("-open")
    line = {"width": 2 if lined else 0, "color": series.outline or series.colour}
    if series.dash:
        path = {"color": series.colour, "dash": series.dash, "width": series.width}
        common["line"] = path
    return {
        "type": "scatter",
        "mode": "+".join(name for name, there in mode if there),
        "marker": {**marker, "symbol": series.symbol or None, "size": series.size, "line": line},
        "textposition": "top center",
        **common,
    }


def _axis(axis: Axis) -> dict[str, Any]:
    settings: dict[str, Any] = {"title": axis.title, "showgrid": axis.grid}
    if axis.log:
        settings |= POWERS
    if axis.span:
        settings["range"] = [log10(end) if axis.log else end for end in axis.span]
    if axis.ticks:
        settings |= {"tickvals": list(axis.ticks), "ticktext": list(axis.ticks.values())}
    return settings


def still(drawn: go.Figure, name: str | None = None, **layout: Any) -> go.Figure:
    """Neither dragging nor zooming: a click picks. ``name`` keeps the view across redraws."""
    drawn.update_layout(dragmode=False, uirevision=name, **layout)
    drawn.update_xaxes(fixedrange=True)
    return drawn.update_yaxes(fixedrange=True)


def picture(traces: Sequence[Trace], *, height: int, name: str, **layout: Any) -> go.Figure:
    """A :func:`still` figure whose layout is given as a whole: told piece by piece, as other charts
    are, Plotly takes ten times as long. ``layout`` goes over the :func:`~app.charts.theme.look`.

    Plotly takes the settings as they are, since these are drawn while a slider moves: all must be
    spelled out (a title as ``{"text": ...}``), and that it would accept them is for tests to say.
    """
    still_axis = {"fixedrange": True}
    parts = (
        theme.look(height=height),
        {"dragmode": False, "uirevision": name, "xaxis": still_axis, "yaxis": still_axis},
        layout,
    )
    settings = {"data": [_given(one) for one in traces], "layout": _given(merged(*parts))}
    return go.Figure(settings, _validate=False)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings without those that are None, as Plotly leaves them out."""
    return {
        name: _given(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if value is not None
    }


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, of which the later ones win."""
    whole: dict[str, Any] = {}
    for name, value in (item for part in parts for item in part.items()):
        if isinstance(value, Mapping):
            value = merged(whole.get(name) or {}, value)
        whole[name] = value
    return whole


def no_axes(x: tuple[float, float], y: tuple[float, float]) -> dict[str, Any]:
    """The layout of a picture from the first to the second of ``x`` and ``y``, with no axes."""
    return {"xaxis": {"visible": False, "range": x}, "yaxis": {"visible": False, "range": y}}


def frame_block(drawn: go.Figure, block: int) -> None:
    """The frame around the open block."""
    line = {"color": theme.SELECTED, "width": 2}
    drawn.add_vrect(x0=block - 0.5, x1=block + 0.5, fillcolor=theme.CLEAR, line=line)


def frame(x: tuple[float, float], y: tuple[float, float], width: float = 3) -> dict[str, Any]:
    """The shape of a frame around what is selected."""
    line = {"color": theme.SELECTED, "width": width}
    return {"type": "rect", "x0": x[0], "x1": x[1], "y0": y[0], "y1": y[1], "line": line}


def marks(
    places: np.ndarray, *, words: Sequence[str] = (), picked: str | None = None, **more: Any
) -> Trace:
    """Marks at ``places`` [n, 2] that say ``words`` under the mouse. A click on others leaves them
    as they are, their text in the colour ``picked``: one for all is what Plotly takes there."""
    text = {} if picked is None else {"textfont": {"color": picked}}
    return {
        "type": "scatter",
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "hovertext": words or None,
        "hoverinfo": "text" if words else "skip",
        "unselected": {"marker": {"opacity": 1}, **text},
        "mode": "markers",
        "showlegend": False,
        **more,
    }


def ring(x: Sequence[float], y: Sequence[float], name: str, size: float, width: float) -> Trace:
    """Rings around marks."""
    line = {"width": width}
    look = {"symbol": "circle-open", "size": size, "color": theme.SELECTED, "line": line}
    return marks(np.column_stack([x, y]), name=name, marker=look)


def targets(
    x: Sequence[float],
    y: Sequence[float],
    ids: Sequence[str],
    words: Sequence[str],
    *,
    size: float,
    **more: Any,
) -> Trace:
    """An invisible layer of squares over a heatmap, whose own cells cannot be picked: it takes
    clicks and shows ``words`` under the mouse."""
    hidden = {"marker": {"opacity": 0}}
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "markers",
        **more,
        "marker": {"symbol": "square", "size": size, "opacity": 0},
        "customdata": ids,
        "hovertext": words,
        "hoverinfo": "text",
        "selected": hidden,
        "unselected": hidden,
    }


def colour_bar(title: str, **more: Any) -> dict[str, Any]:
    """The slim scale beside a heatmap."""
    return {"title": {"text": title, "side": "right"}, "thickness": 12, "outlinewidth": 0, **more}
