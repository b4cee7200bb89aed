"""How far each module is from the dense one, before and after recovery."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

import plotly.graph_objects as go

from app.charts import theme
from pruning.artifacts.events import ModuleEvent

_KINDS = (("attention", theme.ATTENTION, "circle"), ("ffn", theme.FFN, "square"))

NOTHING_YET = (-3.2, 0.2)
"""Decades that an empty picture shows; most errors end up there."""
LARGE = 15
"""Pixels of type that is read from the back of a room."""


def errors(
    events: Sequence[ModuleEvent],
    blocks: range,
    height: int = 300,
    *,
    large: bool = False,
    among: Sequence[ModuleEvent] = (),
) -> go.Figure:
    """Relative squared error per module on a log scale; dotted and hollow = before recovery.

    ``blocks`` fixes the width, so that the lines grow to the right while a run works; ``among``,
    all decisions of a replay, fixes the height. ``large``: to be read from the back of a room;
    then the newest module has a ring.
    """
    figure = go.Figure()
    for kind, colour, symbol in _KINDS:
        own = [event for event in events if event.kind == kind]
        label = "FFN" if kind == "ffn" else kind
        for name, values, dash, mark in (
            ("cut", [e.error_before for e in own], "dot", f"{symbol}-open"),
            ("recovered", [e.error_after for e in own], "solid", symbol),
        ):
            figure.add_scatter(
                x=[event.block for event in own],
                y=[value if value > 0 else None for value in values],
                mode="lines+markers",
                name=f"{label}, {name}",
                line={"color": colour, "dash": dash, "width": 3 if large else 2},
                marker={"symbol": mark, "size": 9 if large else 7, "color": colour},
                hovertemplate=f"block %{{x}}, {label}, {name}: %{{y:.4f}}<extra></extra>",
            )
    if large and events:
        figure.add_trace(_ring(events[-1]))
    theme.styled(figure, height=height)
    figure.update_yaxes(title="relative error", type="log", tickformat="~g", dtick=1)
    if not events:
        figure.update_yaxes(range=NOTHING_YET)
    figure.update_xaxes(title="block", range=[blocks.start - 0.5, blocks.stop - 0.5])
    if len(blocks) <= 12:
        figure.update_xaxes(dtick=1)
    if among:
        figure.update_yaxes(range=_decades(among))
    if large:
        figure.update_layout(
            # a little smaller: in two rows it would take the picture's height
            legend={"font": {"size": LARGE - 1}, "itemclick": False, "itemdoubleclick": False},
            uirevision="errors",
        )
        for axes in (figure.update_xaxes, figure.update_yaxes):
            axes(tickfont={"size": LARGE}, title={"font": {"size": LARGE}}, fixedrange=True)
    return figure


def _ring(event: ModuleEvent) -> go.Scatter:
    values = [value for value in (event.error_before, event.error_after) if value > 0]
    return go.Scatter(
        x=[event.block] * len(values),
        y=values,
        mode="markers",
        name="newest",
        marker={"symbol": "circle-open", "size": 20, "color": theme.SELECTED, "line": {"width": 3}},
        hoverinfo="skip",
        cliponaxis=False,
        showlegend=False,
    )


def _decades(events: Sequence[ModuleEvent]) -> list[float] | None:
    """Range of a log axis (powers of ten) with some air around all errors."""
    values = [v for event in events for v in (event.error_before, event.error_after) if v > 0]
    if not values:
        return None
    return [log10(min(values)) - 0.15, log10(max(values)) + 0.15]


def errors_alt(events: Sequence[ModuleEvent]) -> str:
    """The lines in one sentence."""
    if not events:
        return "Reconstruction error per block: nothing is cut yet."
    last = events[-1]
    kind = "FFN" if last.kind == "ffn" else "attention"
    return (
        f"Reconstruction error per block before and after recovery, {len(events)} modules so far; "
        f"the newest is block {last.block} {kind}: {last.error_before:.4f} cut, "
        f"{last.error_after:.4f} recovered."
    )
