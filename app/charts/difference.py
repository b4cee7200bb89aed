"""Two models block by block: how far weights and outputs have moved."""

from __future__ import annotations

from app.charts import theme
from app.charts.chart import Axis, Chart, Series, block_axis
from pruning.artifacts.difference import Difference

_LINES = {
    "attention change": (theme.ATTENTION, "circle", "solid"),
    "FFN change": (theme.FFN, "square", "dash"),
    "output error": (theme.PURPLE, "diamond", "dot"),
}


def block_changes(found: Difference) -> Chart:
    """Relative change of the weights that both have, and error of the residual stream behind each
    block, in percent."""
    rows, series = found.block_rows(), []
    for name, (colour, symbol, dash) in _LINES.items():
        if all(row[name] is None for row in rows):
            continue
        values = [None if row[name] is None else 100 * row[name] for row in rows]
        words = [
            f"block {row['block']}: {name} "
            + ("not compared" if row[name] is None else f"{row[name]:.2%}")
            for row in rows
        ]
        x = [row["block"] for row in rows]
        series.append(Series(name, x, values, words, colour, symbol=symbol, dash=dash))
    largest = max(rows, key=lambda row: max(row[name] or 0.0 for name in _LINES))
    return Chart(
        f"Relative changes of {len(rows)} blocks; the largest are in block {largest['block']}.",
        series,
        block_axis(range(len(rows))),
        Axis("relative change (%)"),
        rows,
    )
