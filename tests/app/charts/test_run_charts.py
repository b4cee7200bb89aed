"""Charts of several runs."""

from __future__ import annotations

from dataclasses import dataclass

from app.charts.figure import figure
from app.charts.runs import sweep_lines


@dataclass(frozen=True)
class Point:
    perplexity: float
    value: float | None = None
    preset: str | None = None


def test_a_sweep_that_has_no_point_yet_is_an_empty_picture():
    drawn = figure(sweep_lines([], {"fast": "Fast"}, "share", (0.1, 0.2)))
    assert not drawn.data and drawn.layout.xaxis.range[0] < 0.1 < 0.2 < drawn.layout.xaxis.range[1]


def test_a_lone_dense_point_gets_few_ticks():
    """Plotly shows two decades around it, where finer steps would lie on each other."""
    drawn = figure(sweep_lines([Point(49.2)], {"fast": "Fast"}, "share", (0.1, 0.2)))
    ticks = drawn.layout.yaxis.tickvals
    assert min(ticks) <= 49.2 <= max(ticks)
    assert all(after >= 2 * before for before, after in zip(ticks, ticks[1:], strict=False))
