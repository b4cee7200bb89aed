"""The plain description of a chart: its figure, its SVG, its CSV and its text are made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
"""One line of the CSV: the name of each column, and its value."""


@dataclass(frozen=True)
class Axis:
    """``span``: the values at the start and at the end of the axis; without it the data decide.
    ``ticks``: what is written at which value; without it Plotly decides."""

    title: str
    span: tuple[float, float] | None = None
    ticks: Mapping[float, str] | None = None
    log: bool = False
    grid: bool = True


@dataclass(frozen=True)
class Series:
    """Bars, or points (``symbol``, by Plotly's name), or a line (``dash``), or points on a line.

    ``x`` and ``y``: where each mark stands; a ``y`` of None is not drawn. ``words``: what is said
    of each mark, in lines. ``labels``: what is written at each. ``ids``: what a click on each
    picks. ``colour`` and ``hatched``: of all bars, or of each. ``outline``: its colour.
    """

    name: str
    x: Sequence[Any]
    y: Sequence[float | None]
    words: Sequence[str]
    colour: str | Sequence[str]
    bars: bool = False
    hatched: bool | Sequence[bool] = False
    outline: str = ""
    opacity: float = 1
    symbol: str = ""
    size: float = 7
    dash: str = ""
    width: float = 2
    labels: Sequence[str] = ()
    ids: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """``alt``: the chart in one sentence. ``rows``: the numbers that it shows. ``level``: a line
    across at this y. ``still``: neither dragged nor zoomed. ``height`` in pixels."""

    alt: str
    series: Sequence[Series]
    x: Axis
    y: Axis
    rows: Sequence[Row] = ()
    height: int = 300
    stacked: bool = False
    still: bool = False
    level: float | None = None


def number_ticks(numbers: range) -> dict[float, str]:
    """Ticks at whole numbers, at as many as there is room for."""
    count = len(numbers)
    step = 1 if count <= 12 else 2 if count <= 24 else 4 if count <= 48 else 8
    return {number: str(number) for number in numbers[::step]}


def block_axis(blocks: range) -> Axis:
    """Blocks along x, with room for the marks of the first and of the last."""
    return Axis("block", (blocks.start - 0.7, blocks.stop - 0.3), number_ticks(blocks))
