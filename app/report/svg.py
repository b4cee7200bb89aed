"""The description of a chart as plain SVG, for the report: the same marks as on the pages."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from app.charts.chart import Axis, Chart, Series
from app.charts.theme import GREY

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 900, 56, 10, 30, 34
LEGEND_STEP = 175
INK, LINES = "#1f2a30", "#dde3e6"
LEGEND_MARKS = {"square": "■", "square-open": "□", "circle": "●", "circle-open": "○"}
Scale = Callable[[float], float]


def svg(chart: Chart) -> str:
    """``chart``, both axes of which have ticks, and a span unless y is logarithmic, as one
    ``<svg>`` with its text alternative."""
    bottom = chart.height - BOTTOM
    x = _scale(chart.x, chart, LEFT, WIDTH - RIGHT)
    y = _scale(chart.y, chart, bottom, TOP)
    parts = [_ticks(chart, x, y, bottom)]
    bars = [series for series in chart.series if series.bars]
    for series in chart.series:
        if series.bars:
            parts += _bars(series, bars.index(series), 1 if chart.stacked else len(bars), x, y)
        else:
            parts += _points(series, x, y)
    parts += [_key(series, place) for place, series in enumerate(chart.series)]
    label = escape(chart.alt)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {chart.height}" '
        f'width="{WIDTH}" height="{chart.height}" role="img" aria-label="{label}" '
        f'fill="{INK}" font-family="system-ui,sans-serif">{"".join(parts)}</svg>'
    )


def _scale(axis: Axis, chart: Chart, start: float, end: float) -> Scale:
    """From values to pixels between ``start`` and ``end``."""
    low, high = _ends(axis, chart)
    measure = math.log10 if axis.log else float
    length = (end - start) / (measure(high) - measure(low))
    return lambda value: start + length * (measure(value) - measure(low))


def _ends(axis: Axis, chart: Chart) -> tuple[float, float]:
    """The axis' own span, or the whole decades that hold all values of y on a log axis."""
    if axis.span:
        return axis.span
    values = [y for series in chart.series for y in series.y if y is not None] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _ticks(chart: Chart, x: Scale, y: Scale, bottom: float) -> str:
    """Both axes: ticks, the lines of the grid along x, titles."""
    low, high = sorted(_ends(chart.y, chart))
    parts = []
    for value, words in (chart.y.ticks or {}).items():
        if low <= value <= high:
            if chart.y.grid:
                parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="{LINES}"/>')
            parts.append(_text(LEFT - 8, y(value) + 4, words, "end"))
    parts += [_text(x(value), bottom + 17, words) for value, words in chart.x.ticks.items()]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 31, chart.x.title))
    middle = (TOP + bottom) / 2
    parts.append(
        f'<g transform="translate(11 {middle:.1f}) rotate(-90)">{_text(0, 0, chart.y.title)}</g>'
    )
    return "".join(parts)


def _bars(series: Series, place: int, beside: int, x: Scale, y: Scale) -> list[str]:
    """Bars number ``place`` of ``beside`` that share the width of a block."""
    room = 0.76 * (x(1) - x(0)) / beside
    shift = room * (place % beside - beside / 2)
    outline = f' stroke="{GREY}" stroke-dasharray="2"' if series.hatched else ""
    return [
        f'<rect x="{x(block) + shift:.1f}" y="{y(value):.1f}" width="{0.95 * room:.1f}" '
        f'height="{y(0) - y(value):.1f}" fill="{series.colour}"{outline}>{_title(words)}</rect>'
        for block, value, words in zip(series.x, series.y, series.words, strict=True)
        if value is not None
    ]


def _points(series: Series, x: Scale, y: Scale) -> list[str]:
    """The line of a series, where it has one, and its points over it."""
    places = [
        (x(one), y(value), words)
        for one, value, words in zip(series.x, series.y, series.words, strict=True)
        if value is not None
    ]
    parts = []
    if series.dash:
        dots = ' stroke-dasharray="3 3"' if series.dash != "solid" else ""
        points = " ".join(f"{left:.1f},{top:.1f}" for left, top, _ in places)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{series.colour}" '
            f'stroke-width="1.5"{dots}/>'
        )
    return parts + [_mark(series, *place) for place in places]


def _mark(series: Series, x: float, y: float, words: str) -> str:
    half, shape = series.size / 2, series.symbol.removesuffix("-open")
    fill = "#fff" if series.symbol.endswith("-open") else series.colour
    if shape == "circle":
        mark = f'circle cx="{x:.1f}" cy="{y:.1f}" r="{half}"'
    elif shape == "x-thin":
        side = series.size
        path = f"M{x - half:.1f} {y - half:.1f}l{side} {side}m0 {-side}l{-side} {side}"
        mark = f'path d="{path}" stroke-width="2"'
    else:
        side = series.size
        mark = f'rect x="{x - half:.1f}" y="{y - half:.1f}" width="{side}" height="{side}"'
    name = mark.split(" ", 1)[0]
    return f'<{mark} fill="{fill}" stroke="{series.colour}">{_title(words)}</{name}>'


def _key(series: Series, place: int) -> str:
    """One entry of the legend."""
    mark = "■" if series.bars else LEGEND_MARKS.get(series.symbol, "✕")
    return (
        f'<text x="{LEFT + LEGEND_STEP * place}" y="16" font-size="12"><tspan '
        f'fill="{series.colour}" font-size="14">{mark}</tspan> {escape(series.name)}</text>'
    )


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>"


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )
