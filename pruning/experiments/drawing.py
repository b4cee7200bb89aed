"""Charts of an experiment as plain SVG: bars, lines and a similarity graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

INK, LINES, GREY = "#1f2a30", "#dde3e6", "#8a979e"
COLOURS = ("#2f6db5", "#d9822b", "#3a9a5b", "#a4478f")
WIDTH, LABEL, ROW = 900, 250, 20


@dataclass(frozen=True)
class Bar:
    """``paper``: the paper's value, a grey marker; values None are not drawn."""

    label: str
    value: float | None
    paper: float | None = None


def bars(title: str, unit: str, found: Sequence[Bar]) -> str:
    """Horizontal bars on a logarithmic axis (or, for shares, from 0 to 1)."""
    share = unit == "share"
    values = [v for bar in found for v in (bar.value, bar.paper) if v is not None and v > 0]
    low, high = (0.0, 1.0) if share else _decades(values)
    height = 54 + ROW * len(found)

    def x(value: float) -> float:
        if share:
            return LABEL + (WIDTH - LABEL - 80) * value
        span = math.log10(high / low)
        return LABEL + (WIDTH - LABEL - 80) * math.log10(max(value, low) / low) / span

    ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if share else _powers(low, high)
    parts = [_text(0, 16, title, bold=True)]
    for tick in ticks:
        parts.append(f'<path d="M{x(tick):.1f} 26V{height - 22}" stroke="{LINES}"/>')
        words = f"{tick:.0%}" if share else f"{tick:,.10g}"
        parts.append(_text(x(tick), height - 8, words, "middle"))
    for place, bar in enumerate(found):
        y = 30 + ROW * place
        parts.append(_text(LABEL - 8, y + 11, bar.label, "end"))
        if bar.value is None:
            parts.append(_text(LABEL + 4, y + 11, "overflow"))
        else:
            words = f"{bar.value:.1%}" if share else f"{bar.value:.4g}"
            width = max(x(bar.value) - LABEL, 1.0)
            parts.append(
                f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="14" fill="{COLOURS[0]}">'
                f"<title>{escape(bar.label)}: {words}</title></rect>"
            )
            parts.append(_text(x(bar.value) + 4, y + 11, words))
        if bar.paper is not None:
            words = f"paper: {bar.paper:.4g}"
            parts.append(
                f'<path d="M{x(bar.paper):.1f} {y - 2}v18" stroke="{GREY}" stroke-width="4">'
                f"<title>{words}</title></path>"
            )
    return _svg(parts, height, title)


def lines(title: str, x_title: str, found: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A line per name over logarithmic axes; names that start with "paper" are grey."""
    points = [point for line in found.values() for point in line]
    if not points:
        return ""
    xs = sorted({x for x, _ in points})
    low, high = _decades([y for _, y in points])
    height, left, bottom = 340, 70, 290

    def at(x: float, y: float) -> tuple[float, float]:
        span = math.log(xs[-1] / xs[0]) or 1.0
        across = left + (WIDTH - left - 30) * math.log(x / xs[0]) / span
        return across, bottom - (bottom - 50) * math.log10(y / low) / math.log10(high / low)

    parts = [_text(0, 16, title, bold=True)]
    for tick in _powers(low, high):
        y = at(xs[0], tick)[1]
        parts.append(f'<path d="M{left} {y:.1f}H{WIDTH - 30}" stroke="{LINES}"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:,.10g}", "end"))
    parts += [_text(at(x, low)[0], bottom + 18, f"{x:g}", "middle") for x in xs]
    parts.append(_text((left + WIDTH) / 2, bottom + 38, x_title, "middle"))
    for place, (name, line) in enumerate(found.items()):
        colour = GREY if name.startswith("paper") else COLOURS[place % len(COLOURS)]
        where = [at(x, y) for x, y in line]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in where)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (a, b), (x, y) in zip(where, line, strict=True):
            words = f"<title>{escape(name)}, {x:g}: {y:.4g}</title>"
            parts.append(
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}">{words}</circle>'
            )
        parts.append(_text(left + 200 * place, 38, f"● {name}", colour=colour))
    return _svg(parts, height, title)


def graph(
    title: str,
    positions: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int, float]],
    gone: Sequence[int],
) -> str:
    """Heads at ``positions`` (unit square), joined by ``edges``; those ``gone`` are hollow."""
    side, parts = 420, [_text(0, 16, title, bold=True)]

    def at(head: int) -> tuple[float, float]:
        return 40 + side * positions[head][0], 50 + side * positions[head][1]

    for first, second, divergence in edges:
        (a, b), (c, d) = at(first), at(second)
        parts.append(
            f'<path d="M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" stroke="{COLOURS[0]}" stroke-width="2">'
            f"<title>{first} and {second}: {divergence:.3f} nats</title></path>"
        )
    for head in range(len(positions)):
        a, b = at(head)
        fill, ink = ("#fff", INK) if head in gone else (COLOURS[0], "#fff")
        parts.append(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="13" fill="{fill}" stroke="{COLOURS[0]}"/>'
        )
        parts.append(_text(a, b + 4, str(head), "middle", colour=ink))
    return _svg(parts, side + 90, title, side + 80)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Powers of ten, or of two steps of ten, that hold all values."""
    finite = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(finite))), math.ceil(math.log10(max(finite)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _powers(low: float, high: float) -> list[float]:
    first, last = round(math.log10(low)), round(math.log10(high))
    step = max(1, (last - first) // 6)
    return [10.0**power for power in range(first, last + 1, step)]


def _svg(parts: Sequence[str], height: int, title: str, width: int = WIDTH) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title)}" '
        f'font-family="system-ui,sans-serif"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>"
    )


def _text(
    x: float, y: float, words: str, anchor: str = "start", *, bold: bool = False, colour: str = INK
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}" fill="{colour}"'
        f"{weight}>{escape(words)}</text>"
    )
