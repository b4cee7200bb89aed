"""Several runs in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from app.charts import theme
from app.charts.chart import Axis, Chart, Series, block_axis
from app.charts.plan_map import COLOURS, NAMES, shares, width_rows
from pruning.artifacts.plan import Plan

LOOKS = tuple(
    zip(
        theme.CATEGORIES,
        ("circle", "square", "diamond", "triangle-up", "x", "star", "cross"),
        ("solid", "dash", "dot", "dashdot", "longdash", "solid", "dash"),
        strict=True,
    )
)


def cloud(
    pruned: Sequence[tuple[float, float, str, str]],
    dense: Sequence[tuple[float, float]],
    x_title: str,
) -> Chart:
    """Perplexity over ``x_title``. ``pruned``: x, perplexity, short name, hover text; ``dense``:
    x and perplexity of each dense model. Down is better."""
    x, y, names, words = zip(*pruned, strict=True)
    dense_words = [f"dense: perplexity {perplexity:.2f}" for _, perplexity in dense]
    return Chart(
        f"Perplexity of {len(pruned)} runs against {x_title}, from {min(y):.2f} to {max(y):.2f}; "
        "lower is better.",
        [
            Series("pruned", x, y, words, theme.KEPT, symbol="circle", size=11, labels=names),
            Series(
                "dense",
                *zip(*dense, strict=True),
                dense_words,
                theme.BEFORE,
                symbol="diamond-open",
                size=13,
            ),
        ],
        Axis(x_title),
        Axis("perplexity"),
    )


def block_differences(first: Plan, second: Plan, names: tuple[str, str]) -> Chart:
    """Share kept by ``second`` less that by ``first`` in each block, in percentage points."""
    rows, blocks = [width_rows(plan) for plan in (first, second)], range(len(first.blocks))
    series = []
    for units, name in NAMES.items():
        pairs = list(zip(*(shares(side, units) for side in rows), strict=True))
        words = [
            f"block {block}, {name} kept: {names[0]} {one:.1f}%, {names[1]} {other:.1f}%"
            for block, (one, other) in enumerate(pairs)
        ]
        gaps = [other - one for one, other in pairs]
        hatched = units == "channels"
        series.append(Series(name, blocks, gaps, words, COLOURS[units], bars=True, hatched=hatched))
    return Chart(
        f"What run {names[1]} keeps of each block less what run {names[0]} keeps: "
        + "; ".join(f"{s.name} {min(s.y):+.1f} to {max(s.y):+.1f} points" for s in series)
        + ".",
        series,
        block_axis(blocks),
        Axis(f"kept, {names[1]} − {names[0]}, points"),
        height=260,
    )


def sweep_lines(
    points: Sequence[Any], titles: Mapping[str, str], x_title: str, reach: tuple[float, float]
) -> Chart:
    """Perplexity (log) over the swept value, a line per preset; ``points`` are SweepPoints and
    ``reach`` fixes the width, so that points appear where they belong."""
    margin = 0.06 * ((reach[1] - reach[0]) or abs(reach[0]) or 1.0)
    ends = (reach[0] - margin, reach[1] + margin)
    pruned = [point for point in points if point.value is not None and point.perplexity]
    lines = []
    for preset in titles:
        if any(point.preset == preset for point in points):
            own = sorted((p for p in pruned if p.preset == preset), key=lambda p: p.value)
            lines.append(_presets(own, preset, titles, [p.value for p in own], line=True))
    return _perplexities(points, lines, Axis(x_title, ends), titles, height=430)


def methods_by_size(points: Sequence[Any], titles: Mapping[str, str]) -> Chart:
    """Perplexity (log) over the share of block parameters kept, a mark per method; ``points`` are
    SweepPoints, the dense one is the reference line."""
    pruned = [point for point in points if point.value is not None]
    kept = [100 * point.kept for point in pruned] or [100.0]
    middle = 0.5 * (min(kept) + max(kept))
    half = max(0.5 * (max(kept) - min(kept)), 0.5) * 1.5
    marks = [_presets([p], p.preset, titles, [100 * p.kept]) for p in pruned if p.perplexity]
    axis = Axis("block parameters kept (%)", (middle - half, middle + half))
    return _perplexities(points, marks, axis, titles, height=330)


def _presets(
    points: Sequence[Any],
    preset: str,
    titles: Mapping[str, str],
    x: Sequence[float],
    *,
    line: bool = False,
) -> Series:
    """The points of one preset, which has the same look in every chart."""
    colour, symbol, dash = LOOKS[list(titles).index(preset) % len(LOOKS)]
    return Series(
        titles[preset],
        x,
        [point.perplexity for point in points],
        [
            f"{titles[preset]}{f' at {value:g}' if line else ''}: perplexity {p.perplexity:.2f}\n"
            f"{p.kept:.1%} of the blocks kept, {p.seconds:.0f} s"
            f"{', the plain cut: recovery was worse' if p.recovery == 'plain' else ''}"
            for p, value in zip(points, x, strict=True)
        ],
        colour,
        symbol=symbol,
        size=9 if line else 12,
        dash=dash if line else "",
    )


def _perplexities(
    points: Sequence[Any], series: list[Series], x: Axis, titles: Mapping[str, str], height: int
) -> Chart:
    """The presets' ``series`` and the dense model's line, which is a series of its own: Plotly
    misplaces the label of a horizontal line on a log axis."""
    dense = [p.perplexity for p in points if p.value is None and p.perplexity]
    best = min((y for one in series for y in one.y), default=None)
    alt = f"Perplexity against {x.title}, for each of: {', '.join(titles.values())}"
    if dense:
        name = f"dense, {dense[0]:.2f}"
        series = [*series, Series(name, x.span, dense * 2, [name] * 2, theme.BEFORE, dash="dot")]
        alt += f"; the dense model has {dense[0]:.2f}"
    ticks = {tick: f"{tick:g}" for tick in log_ticks([p.perplexity for p in points])}
    return Chart(
        f"{alt}; the lowest is {best:.2f}." if best else f"{alt}.",
        series,
        x,
        Axis("perplexity", ticks=ticks, log=True),
        [asdict(point) for point in points],
        height=height,
    )


def log_ticks(perplexities: Sequence[float | None]) -> list[float]:
    """Round numbers around the perplexities, fewer in a wider span; Plotly shows a lone value in
    the middle of two decades."""
    values = [value for value in perplexities if value]
    if not values:
        return [10.0, 100.0, 1000.0]
    low, high = min(values), max(values)
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if low < high < 6 * low else (1, 2, 5)
    steps = steps if high < 300 * low else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [round(s * 10.0**k, 9) for k in range(first, last + 1) for s in steps]
