"""How far each module is from the dense one, before and after recovery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import plotly.graph_objects as go

from app.charts import theme
from app.charts.chart import Axis, Chart, Row, Series, block_axis
from app.charts.figure import STILL_LEGEND, figure, ring, still
from pruning.artifacts.events import ModuleEvent

KINDS = {"attention": ("attention", theme.ATTENTION, "circle"), "ffn": ("FFN", theme.FFN, "square")}
STAGES = {"error_cut": ("cut", "dot", "-open"), "error_recovered": ("recovered", "solid", "")}
NOTHING_YET = (6e-4, 1.6)
"""Errors that an empty picture shows room for; most end up there."""
DECADES = {10.0**power: f"{10.0**power:g}" for power in range(-12, 7)}
"""Plain numbers rather than powers: to be read from afar."""
LARGE = 15
"""Pixels of type that is read from the back of a room."""
AIR = 1.4
"""Factor between the errors and the ends of the axis."""


def error_rows(events: Sequence[ModuleEvent]) -> list[Row]:
    """Relative reconstruction error of each module that was cut."""
    return [
        {
            "block": event.block,
            "module": event.kind,
            "units": event.units,
            "removed": len(event.removed),
            "error_cut": event.error_before,
            "error_recovered": event.error_after,
            "seconds": event.seconds,
        }
        for event in events
    ]


def error_chart(
    events: Sequence[ModuleEvent], blocks: range, among: Sequence[ModuleEvent] = ()
) -> Chart:
    """Relative squared error per module on a log scale; dotted and hollow = before recovery.

    ``blocks`` fixes the width, so that the lines grow to the right while a run works; ``among``,
    all decisions of a replay, fixes the height.
    """
    rows = error_rows(events)
    ends = NOTHING_YET if not events and not among else _reach(error_rows(among))
    return Chart(
        _alt(rows),
        [
            _line([row for row in rows if row["module"] == kind], kind, stage)
            for kind in KINDS
            for stage in STAGES
        ],
        block_axis(blocks),
        Axis("relative error", ends, DECADES, log=True),
        rows,
    )


def _line(rows: list[Row], kind: str, stage: str) -> Series:
    (module, colour, symbol), (word, dash, hollow) = KINDS[kind], STAGES[stage]
    name = f"{module}, {word}"
    return Series(
        name,
        [row["block"] for row in rows],
        [row[stage] if row[stage] > 0 else None for row in rows],
        [f"block {row['block']}, {name}: {row[stage]:.4f}" for row in rows],
        colour,
        symbol=symbol + hollow,
        dash=dash,
    )


def _positive(rows: list[Row]) -> list[float]:
    return [row[stage] for row in rows for stage in STAGES if row[stage] > 0]


def _reach(rows: list[Row]) -> tuple[float, float] | None:
    """Ends of an axis with some air around all errors."""
    values = _positive(rows)
    return (min(values) / AIR, max(values) * AIR) if values else None


def _alt(rows: list[Row]) -> str:
    if not rows:
        return "Reconstruction error per block: nothing is cut yet."
    last = rows[-1]
    return (
        f"Reconstruction error per block before and after recovery, {len(rows)} modules so far; "
        f"the newest is block {last['block']} {KINDS[last['module']][0]}: "
        f"{last['error_cut']:.4f} cut, {last['error_recovered']:.4f} recovered."
    )


def large_errors(chart: Chart) -> go.Figure:
    """``chart`` of :func:`error_chart` to be read from the back of a room; a ring around the
    newest module."""
    series = [replace(one, size=9, width=3) for one in chart.series]
    drawn = still(figure(replace(chart, series=series)), "errors")
    if chart.rows:
        values = _positive(chart.rows[-1:])
        newest = ring([chart.rows[-1]["block"]] * len(values), values, "newest", 20, 3)
        drawn.add_trace({**newest, "cliponaxis": False})
    return large_type(drawn)


def large_type(drawn: go.Figure) -> go.Figure:
    """The same with type that is read from the back of a room."""
    # a little smaller: in two rows it would take the picture's height
    drawn.update_layout(legend={"font": {"size": LARGE - 1}, **STILL_LEGEND})
    for axes in (drawn.update_xaxes, drawn.update_yaxes):
        axes(tickfont={"size": LARGE}, title={"font": {"size": LARGE}})
    return drawn
