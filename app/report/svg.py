"""Charts as plain SVG for the report; the same marks as on the pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from app.charts import theme
from pruning.artifacts.events import ModuleEvent
from pruning.artifacts.plan import Plan

WIDTH, LEFT, TOP, BOTTOM = 900, 56, 30, 34


def widths(plan: Plan, height: int = 230) -> str:
    """Share of heads and of FFN channels that each block keeps."""
    y = _linear(0, 100, height)
    step = _step(len(plan.blocks))
    parts = [_axis_y([(v, f"{v}%") for v in (0, 25, 50, 75, 100)], y)]
    looks = (("attention", theme.ATTENTION, "heads kept"), ("ffn", theme.FFN, "channels kept"))
    for place, (kind, colour, _) in enumerate(looks):
        for index, block in enumerate(plan.blocks):
            module = block.module(kind)
            share = 100 * len(module.kept) / module.units
            left = LEFT + step * index + step * (0.12 + 0.4 * place)
            outline = "" if kind == "attention" else f' stroke="{theme.GREY}" stroke-dasharray="2"'
            parts.append(
                f'<rect x="{left:.1f}" y="{y(share):.1f}" width="{0.36 * step:.1f}" '
                f'height="{y(0) - y(share):.1f}" fill="{colour}"{outline}>'
                f"<title>block {index}: {len(module.kept)} of {module.units}</title></rect>"
            )
    parts += [_axis_x(len(plan.blocks), height), _legend([(c, "■", n) for _, c, n in looks])]
    return _svg(parts, height, "Share of heads and channels that each block keeps")


def heads(plan: Plan) -> str:
    """Blocks × heads: ■ stays, ✕ goes; the reason as the tooltip."""
    most = max(block.attention.units for block in plan.blocks)
    row = max(9.0, min(18.0, 300 / most))
    height = round(TOP + BOTTOM + row * most)
    step, side = _step(len(plan.blocks)), min(0.34 * row, 5.0)
    parts = []
    for index, block in enumerate(plan.blocks):
        reasons = block.attention.reasons()
        for head in range(block.attention.units):
            x, y = LEFT + step * (index + 0.5), TOP + row * (head + 0.5)
            if head in reasons:
                path = f"M{x - side:.1f} {y - side:.1f}l{2 * side} {2 * side}m0 {-2 * side}"
                mark = (
                    f'<path d="{path}l{-2 * side} {2 * side}" stroke="{theme.PRUNED}" '
                    'stroke-width="2" fill="none">'
                )
                end = f"<title>block {index}, head {head}: {reasons[head]}</title></path>"
            else:
                mark = (
                    f'<rect x="{x - side:.1f}" y="{y - side:.1f}" width="{2 * side:.1f}" '
                    f'height="{2 * side:.1f}" fill="{theme.KEPT}">'
                )
                end = f"<title>block {index}, head {head} stays</title></rect>"
            parts.append(mark + end)
    every = 1 if most <= 12 else 4
    for head in range(0, most, every):
        parts.append(_text(LEFT - 8, TOP + row * (head + 0.5) + 4, str(head), "end"))
    parts.append(_axis_x(len(plan.blocks), height))
    parts.append(_legend([(theme.KEPT, "■", "head stays"), (theme.PRUNED, "✕", "head goes")]))
    return _svg(parts, height, "Which heads stay and which go")


def errors(events: Sequence[ModuleEvent], height: int = 240) -> str:
    """Relative error of each module on a log scale, before (hollow) and after recovery."""
    values = [v for e in events for v in (e.error_before, e.error_after) if v > 0]
    if not values:
        return ""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    scale = _linear(low, max(high, low + 1), height)
    blocks = max(event.block for event in events) + 1
    step = _step(blocks)
    ticks = [(power, f"{10.0**power:g}") for power in range(low, max(high, low + 1) + 1)]
    parts = [_axis_y(ticks, scale)]
    for kind, colour in (("attention", theme.ATTENTION), ("ffn", theme.FFN)):
        for field, filled in (("error_before", False), ("error_after", True)):
            points = [
                (LEFT + step * (e.block + 0.5), scale(math.log10(getattr(e, field))))
                for e in events
                if e.kind == kind and getattr(e, field) > 0
            ]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            dash = "" if filled else ' stroke-dasharray="3 3"'
            parts.append(
                f'<polyline points="{line}" fill="none" stroke="{colour}" '
                f'stroke-width="1.5"{dash}/>'
            )
            parts += [_mark(kind, x, y, colour, filled) for x, y in points]
    parts.append(_axis_x(blocks, height))
    parts.append(
        _legend(
            [
                (theme.ATTENTION, "○", "attention, cut"),
                (theme.ATTENTION, "●", "recovered"),
                (theme.FFN, "□", "FFN, cut"),
                (theme.FFN, "■", "recovered"),
            ]
        )
    )
    return _svg(parts, height, "Reconstruction error of each module before and after recovery")


def _mark(kind: str, x: float, y: float, colour: str, filled: bool) -> str:
    paint = f'fill="{colour if filled else "#fff"}" stroke="{colour}"'
    if kind == "attention":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" {paint}/>'
    return f'<rect x="{x - 3.2:.1f}" y="{y - 3.2:.1f}" width="6.4" height="6.4" {paint}/>'


def _step(blocks: int) -> float:
    return (WIDTH - LEFT - 10) / max(blocks, 1)


def _linear(low: float, high: float, height: int) -> Callable[[float], float]:
    space = height - TOP - BOTTOM
    return lambda value: TOP + space * (high - value) / (high - low)


def _axis_y(ticks: Sequence[tuple[float, str]], scale: Callable[[float], float]) -> str:
    return "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{scale(v):.1f}" y2="{scale(v):.1f}" '
        f'stroke="#dde3e6"/>{_text(LEFT - 8, scale(v) + 4, words, "end")}'
        for v, words in ticks
    )


def _axis_x(blocks: int, height: int) -> str:
    step, every = _step(blocks), 1 if blocks <= 16 else 2 if blocks <= 32 else 8
    numbers = "".join(
        _text(LEFT + step * (index + 0.5), height - 17, str(index))
        for index in range(0, blocks, every)
    )
    return numbers + _text(LEFT + step * blocks / 2, height - 3, "block")


def _legend(entries: Sequence[tuple[str, str, str]]) -> str:
    return "".join(
        f'<text x="{LEFT + 170 * place}" y="16" font-size="12"><tspan fill="{colour}" '
        f'font-size="14">{mark}</tspan> {words}</text>'
        for place, (colour, mark, words) in enumerate(entries)
    )


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" text-anchor="{anchor}">{words}</text>'


def _svg(parts: Sequence[str], height: int, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{label}" fill="#1f2a30" '
        f'font-family="system-ui,sans-serif">{"".join(parts)}</svg>'
    )
