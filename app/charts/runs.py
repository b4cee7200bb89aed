"""Several runs in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from app.charts import theme
from pruning.artifacts.plan import Plan

DENSE_LOOK = {"symbol": "diamond-open", "size": 13, "color": theme.BEFORE, "line": {"width": 2}}
PRUNED_LOOK = {"symbol": "circle", "size": 11, "color": theme.KEPT}


def cloud(
    pruned: Sequence[tuple[float, float, str, str]],
    dense: Sequence[tuple[float, float]],
    x_title: str,
    height: int = 300,
) -> go.Figure:
    """Perplexity over ``x_title``. ``pruned``: x, perplexity, short name, hover text; ``dense``:
    x and perplexity of each dense model. Down is better."""
    figure = go.Figure()
    figure.add_scatter(
        x=[x for x, *_ in pruned],
        y=[y for _, y, *_ in pruned],
        mode="markers+text",
        name="pruned",
        marker=PRUNED_LOOK,
        text=[name for *_, name, _ in pruned],
        textposition="top center",
        hovertext=[text for *_, text in pruned],
        hoverinfo="text",
        cliponaxis=False,
    )
    figure.add_scatter(
        x=[x for x, _ in dense],
        y=[y for _, y in dense],
        mode="markers",
        name="dense",
        marker=DENSE_LOOK,
        hovertemplate="dense: perplexity %{y:.2f}<extra></extra>",
    )
    theme.styled(figure, height=height)
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(title="perplexity")
    return figure


def block_differences(first: Plan, second: Plan, names: tuple[str, str]) -> go.Figure:
    """Share kept by ``second`` less that by ``first`` in each block, in percentage points."""
    figure = go.Figure()
    for kind, name, colour, pattern in (
        ("attention", "heads", theme.ATTENTION, ""),
        ("ffn", "FFN channels", theme.FFN, "/"),
    ):
        shares = [
            [100 * len(block.module(kind).kept) / block.module(kind).units for block in plan.blocks]
            for plan in (first, second)
        ]
        figure.add_bar(
            x=list(range(len(first.blocks))),
            y=[b - a for a, b in zip(*shares, strict=True)],
            name=name,
            marker={
                "color": colour,
                "pattern": {"shape": pattern, "size": 6, "solidity": 0.25, "fillmode": "overlay"},
            },
            customdata=list(zip(*shares, strict=True)),
            hovertemplate=f"block %{{x}}, {name} kept: {names[0]} %{{customdata[0]:.1f}}%, "
            f"{names[1]} %{{customdata[1]:.1f}}%<extra></extra>",
        )
    figure.update_layout(barmode="group", bargap=0.25)
    theme.styled(figure, height=260)
    figure.update_yaxes(title=f"kept, {names[1]} − {names[0]}, points", zeroline=True)
    figure.update_xaxes(title="block")
    return figure


LOOKS = tuple(
    zip(
        theme.CATEGORIES,
        ("circle", "square", "diamond", "triangle-up", "x", "star", "cross"),
        ("solid", "dash", "dot", "dashdot", "longdash", "solid", "dash"),
        strict=True,
    )
)


def sweep_lines(
    points: Sequence[Any],
    titles: dict[str, str],
    x_title: str,
    reach: tuple[float, float],
    height: int = 430,
) -> go.Figure:
    """Perplexity (log) over the swept value, a line per preset; ``points`` are SweepPoints and
    ``reach`` fixes the width, so that points appear where they belong."""
    figure = go.Figure()
    presets = [preset for preset in titles if any(p.preset == preset for p in points)]
    for preset in presets:
        colour, symbol, dash = LOOKS[list(titles).index(preset) % len(LOOKS)]
        own = sorted(
            (p for p in points if p.preset == preset and p.perplexity), key=lambda p: p.value
        )
        figure.add_scatter(
            x=[p.value for p in own],
            y=[p.perplexity for p in own],
            mode="lines+markers",
            name=titles[preset],
            line={"color": colour, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 9, "color": colour},
            customdata=[[p.kept, p.seconds] for p in own],
            hovertemplate=f"{titles[preset]} at %{{x}}: perplexity %{{y:.2f}}<br>"
            "%{customdata[0]:.1%} of the blocks kept, %{customdata[1]:.0f} s<extra></extra>",
        )
    margin = 0.06 * ((reach[1] - reach[0]) or abs(reach[0]) or 1.0)
    ends = [reach[0] - margin, reach[1] + margin]
    _dense_line(figure, points, ends)
    theme.styled(figure, height=height)
    figure.update_xaxes(title=x_title, range=ends)
    _log_axis(figure, points)
    return figure


def methods_by_size(points: Sequence[Any], titles: dict[str, str], height: int = 330) -> go.Figure:
    """Perplexity (log) over the share of block parameters kept, a mark per method; ``points`` are
    SweepPoints, the dense one is the reference line."""
    figure = go.Figure()
    for point in points:
        if point.value is None or not point.perplexity:
            continue
        colour, symbol, _ = LOOKS[list(titles).index(point.preset) % len(LOOKS)]
        figure.add_scatter(
            x=[point.kept],
            y=[point.perplexity],
            mode="markers",
            name=titles[point.preset],
            marker={"symbol": symbol, "size": 12, "color": colour},
            hovertemplate=f"{titles[point.preset]}: perplexity %{{y:.2f}}<br>"
            f"%{{x:.1%}} of the blocks kept, {point.seconds:.0f} s<extra></extra>",
        )
    kept = [p.kept for p in points if p.value is not None] or [1.0]
    middle = 0.5 * (min(kept) + max(kept))
    half = max(0.5 * (max(kept) - min(kept)), 0.005) * 1.5
    _dense_line(figure, points, [middle - half, middle + half])
    theme.styled(figure, height=height)
    figure.update_xaxes(
        title="block parameters kept", tickformat=".1%", range=[middle - half, middle + half]
    )
    _log_axis(figure, points)
    return figure


def _dense_line(figure: go.Figure, points: Sequence[Any], ends: list[float]) -> None:
    """A line of its own: Plotly misplaces the label of a horizontal line on a log axis."""
    dense = [p.perplexity for p in points if p.value is None and p.perplexity]
    if dense:
        figure.add_scatter(
            x=ends,
            y=dense * 2,
            mode="lines",
            name=f"dense, {dense[0]:.2f}",
            hoverinfo="name",
            line={"color": theme.BEFORE, "dash": "dot", "width": 2},
        )


def _log_axis(figure: go.Figure, points: Sequence[Any]) -> None:
    ticks = _log_ticks([p.perplexity for p in points if p.perplexity])
    figure.update_yaxes(
        title="perplexity", type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks]
    )


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers around ``values``, fewer in a wider span; Plotly shows a lone value in the
    middle of two decades."""
    if not values:
        return [10.0, 100.0, 1000.0]
    low, high = min(values), max(values)
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if low < high < 6 * low else (1, 2, 5)
    steps = steps if high < 300 * low else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [round(s * 10.0**k, 9) for k in range(first, last + 1) for s in steps]
