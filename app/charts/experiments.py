"""The paper's tables and figures as charts, its own values as grey marks."""

from __future__ import annotations

from collections.abc import Sequence

from app.charts import theme
from app.charts.chart import Axis, Chart, Series, block_axis
from app.charts.picks import point_id
from app.charts.runs import LOOKS, log_ticks
from pruning.experiments.result import Result, Value, shown

DENSE = "Dense"
ROW, AROUND = 24, 90
"""Pixels of one method, and of what stands above and below all of them."""
CELL = "cell"
"""The kind of id that a mark of a cell carries; its number is that of the row."""


def settings_of(result: Result) -> list[str]:
    """The sizes in ``result``, in order; the dense model is of none."""
    return list(dict.fromkeys(str(row["setting"]) for row in result.rows if row["setting"]))


def methods(result: Result, setting: str, column: str) -> Chart:
    """The value of each method at one size, a row each, beside the paper's."""
    rows = [(n, row) for n, row in enumerate(result.rows) if row["setting"] == setting]
    share = column not in result.texts
    names = {float(place): str(row["method"]) for place, (_, row) in enumerate(rows)}
    found = [(place, n, row) for place, (n, row) in enumerate(rows)]
    ours = [(place, n, value) for place, n, row in found if (value := _number(row.get(column)))]
    theirs = [(place, v) for place, _, row in found if (v := _number(row.get(f"paper {column}")))]
    first = next((row for row in result.rows if not row["setting"]), {})
    dense = _number(first.get(column))
    what = f"accuracy, {column}" if share else f"perplexity on {column}"
    series = [
        Series(
            "here",
            [value for _, _, value in ours],
            [place for place, _, _ in ours],
            [f"{names[place]}: {shown(column, value)}" for place, _, value in ours],
            theme.KEPT,
            symbol="circle",
            size=12,
            ids=[point_id(CELL, n) for _, n, _ in ours],
        )
    ]
    if theirs:
        words = [f"{names[place]}, paper: {shown(column, value)}" for place, value in theirs]
        at = [value for _, value in theirs], [place for place, _ in theirs]
        series.append(Series("paper", *at, words, theme.GREY, symbol="line-ns-open", size=18))
    ends = (len(rows) - 0.4, -0.6)
    if dense is not None:
        name = f"dense, {shown(column, dense)}"
        line = [dense, dense], list(ends)
        series.append(Series(name, *line, [name] * 2, theme.BEFORE, dash="dot"))
    values = [v for one in series for v in one.x]
    lost = [names[place] for place, _, row in found if row.get(column) is None]
    over = f" No finite value: {', '.join(lost)}." if lost else ""
    best = _best(ours, names, share)
    return Chart(
        f"{what[:1].upper()}{what[1:]} of {len(rows)} methods, {setting}{best}.{over}",
        series,
        _axis(what, values, share),
        Axis("", ends, names),
        [{name: row.get(name) for name in result.columns} for _, row in rows],
        height=AROUND + ROW * max(len(rows), 2),
    )


def along_samples(result: Result, text: str) -> Chart:
    """Perplexity against calibration samples, a line per method, the paper's in grey."""
    points = [
        (n, str(row["method"]), cell.recipe["calibration"]["samples"], row)
        for n, (row, cell) in enumerate(zip(result.rows, result.cells, strict=True))
        if cell is not None and cell.recipe is not None
    ]
    series = []
    for place, name in enumerate(dict.fromkeys(point[1] for point in points)):
        mine = [point for point in points if point[1] == name]
        colour, symbol, dash = LOOKS[place % len(LOOKS)]
        x, y = [p[2] for p in mine], [_number(p[3].get(text)) for p in mine]
        words = [
            f"{name}, {samples} samples: {shown(text, p.get(text))}" for _, _, samples, p in mine
        ]
        ids = [point_id(CELL, n) for n, *_ in mine]
        look = {"symbol": symbol, "size": 10.0, "dash": dash}
        series.append(Series(name, x, y, words, colour, ids=ids, **look))
        paper = [_number(p[3].get(f"paper {text}")) for p in mine]
        if any(paper):
            words = [f"paper, {name}: {shown(text, value)}" for value in paper]
            series.append(Series(f"paper: {name}", x, paper, words, theme.GREY, **look))
    values = [v for one in series for v in one.y if v]
    samples = sorted({point[2] for point in points})
    return Chart(
        f"Perplexity on {text} against {len(samples)} numbers of calibration samples, for each of: "
        f"{', '.join(one.name for one in series)}.",
        series,
        Axis("calibration samples", _span(samples), {n: str(n) for n in samples}, log=True),
        Axis(f"perplexity on {text}", ticks={v: f"{v:g}" for v in log_ticks(values)}, log=True),
        [dict(row) for *_, row in points],
        height=360,
    )


def activations(result: Result, tensor: str) -> Chart:
    """Mean activation of each block, absolute as bars, signed as points."""
    rows = [row for row in result.rows if row["tensor"] == tensor and row["block"] != "all"]
    blocks = range(len(rows))
    kinds = {"absolute mean": {"bars": True}, "signed mean": {"symbol": "diamond", "size": 8.0}}
    colours = {"absolute mean": theme.SKY, "signed mean": theme.VERMILLION}
    series = [
        Series(
            name,
            blocks,
            [_number(row[name]) for row in rows],
            [f"block {row['block']}, {name}: {row[name]:.3g}" for row in rows],
            colours[name],
            **look,
        )
        for name, look in kinds.items()
    ]
    largest = max(range(len(rows)), key=lambda n: rows[n]["absolute mean"])
    return Chart(
        f"Mean activation of {len(rows)} blocks, {tensor}; the largest absolute mean is in block "
        f"{largest}.",
        series,
        block_axis(blocks),
        Axis("mean activation"),
        [dict(row) for row in rows],
        height=300,
    )


def _best(ours: Sequence[tuple[int, int, float]], names: dict[float, str], share: bool) -> str:
    if not ours:
        return ""
    place, _, _ = (max if share else min)(ours, key=lambda item: item[2])
    return f"; {names[place]} is best"


def _axis(title: str, values: Sequence[float], share: bool) -> Axis:
    if share:
        return Axis(title, (0.0, 1.0), {n / 4: f"{n / 4:.0%}" for n in range(5)})
    ticks = {value: f"{value:g}" for value in log_ticks(values)}
    return Axis(title, _span(values), ticks, log=True)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """A little more than all ``values`` on a logarithmic axis."""
    low, high = min(values, default=10.0), max(values, default=100.0)
    air = (high / low) ** 0.06 * 1.05
    return low / air, high * air


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) else None
