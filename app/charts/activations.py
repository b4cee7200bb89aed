"""How large activations are: per block for the whole model, and in detail for one block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.charts.chart import Axis, Chart, Row, Series
from app.charts.figure import POWERS, STILL_LEGEND, Trace, still, trace
from app.charts.picks import point_id
from app.charts.theme import ATTENTION, FFN, GREEN, GREY, PRUNED, SELECTED, styled
from pruning.artifacts.measurement import ActivationSummary, Measurement
from pruning.planning.analysis import ChannelMagnitude

PLACES = {
    "residual": "Residual stream (block input)",
    "attention": "Attention output",
    "ffn": "FFN intermediate",
}
LOOKS = {
    "residual": (GREEN, "circle", "solid"),
    "attention": (ATTENTION, "square", "dash"),
    "ffn": (FFN, "diamond", "dot"),
}
FLOOR = 1e-6
"""A log axis has no zero: quantiles below this (dead channels) are drawn here."""
QUANTILE = "quantile_{:g}"


def summary_row(block: int, place: str, summary: ActivationSummary) -> Row:
    """|x| at one place of one block: mean, maximum, quantiles."""
    quantiles = zip(summary.levels, summary.quantiles, strict=True)
    return {
        "block": block,
        "place": place,
        "mean": summary.mean_absolute,
        "maximum": summary.maximum,
        **{QUANTILE.format(level): value for level, value in quantiles},
    }


def magnitude_rows(measurement: Measurement) -> list[Row]:
    """|x| at each place of each block."""
    return [
        summary_row(index, place, summary)
        for index, block in enumerate(measurement.blocks)
        for place, summary in block.activations.items()
    ]


def channel_rows(measurement: Measurement) -> list[Row]:
    """The largest channels by mean |x| that the measurement kept."""
    return [
        {"block": index, "place": place, "channel": channel, "mean": value}
        for index, block in enumerate(measurement.blocks)
        for place, summary in block.activations.items()
        for channel, value in zip(summary.top_channels, summary.top_values, strict=True)
    ]


def _by_place(measurement: Measurement) -> dict[str, list[Row]]:
    rows = magnitude_rows(measurement)
    return {place: [row for row in rows if row["place"] == place] for place in PLACES}


def magnitude_per_block(measurement: Measurement, *, open_block: int) -> go.Figure:
    """One panel per place, block along x, |x| along a log y: bands of quantiles, mean, maximum.

    The mean and maximum marks carry the id ``block:index``.
    """
    drawn = make_subplots(
        rows=1, cols=len(PLACES), subplot_titles=list(PLACES.values()), horizontal_spacing=0.06
    )
    for column, (place, rows) in enumerate(_by_place(measurement).items(), start=1):
        for marks in _panel(rows, LOOKS[place][0]):
            drawn.add_trace(marks, row=1, col=column)
        drawn.add_vline(x=open_block, line={"color": SELECTED, "width": 2}, row=1, col=column)
    drawn.add_traces(_legend())
    styled(drawn, height=350)
    still(drawn, "magnitude", hovermode="closest", margin={"t": 64})
    drawn.update_layout(legend={"y": 1.14, **STILL_LEGEND})
    drawn.update_xaxes(title_text="block", range=[-0.8, len(measurement.blocks) - 0.2])
    drawn.update_yaxes(**POWERS)
    drawn.update_yaxes(title_text="|x|", row=1, col=1)
    return drawn


def magnitude_alt(measurement: Measurement) -> str:
    """The overview in one sentence."""
    parts = []
    for place, rows in _by_place(measurement).items():
        means, peak = [row["mean"] for row in rows], max(row["maximum"] for row in rows)
        parts.append(
            f"{PLACES[place]}: mean |x| from {min(means):.3g} to {max(means):.3g}, "
            f"largest {peak:.3g}"
        )
    return f"Activation magnitude of {len(measurement.blocks)} blocks. {'; '.join(parts)}."


def quantile_profile(block: int, activations: Mapping[str, ActivationSummary]) -> Chart:
    """Quantiles of |x| of one block's three places, on a log axis, ending in the maximum."""
    series, parts, rows = [], [], []
    for place, title in PLACES.items():
        row = summary_row(block, place, activations[place])
        colour, symbol, dash = LOOKS[place]
        points = {
            f"{100 * level:g}%": row[QUANTILE.format(level)] for level in activations[place].levels
        }
        points = {name: _positive(x) for name, x in (points | {"max": row["maximum"]}).items()}
        words = [f"{title}\n{name}: |x| = {value:.3g}" for name, value in points.items()]
        x, y = list(points), list(points.values())
        series.append(Series(title, x, y, words, colour, symbol=symbol, size=8, dash=dash))
        parts.append(f"{title}: median {_quantile(row, 0.5):.3g}, maximum {row['maximum']:.3g}")
        rows.append(row)
    return Chart(
        f"Quantiles of |x| in block {block}. {'; '.join(parts)}.",
        series,
        Axis("quantile of |x|"),
        Axis("|x|", log=True),
        rows,
        height=320,
        still=True,
    )


def channel_bars(
    block: int, place: str, channels: Sequence[ChannelMagnitude], factor: float
) -> Chart:
    """Largest channels of one place as multiples of its mean |x|; outliers, beyond ``factor``,
    are hatched."""
    bars = Series(
        PLACES[place],
        [str(row.channel) for row in channels],
        [row.times_mean for row in channels],
        [
            f"channel {row.channel}\nmean |x| = {row.mean_absolute:.3g}, "
            f"{row.times_mean:.1f} × the mean of all channels"
            + ("\noutlier" if row.is_outlier else "")
            for row in channels
        ],
        [PRUNED if row.is_outlier else LOOKS[place][0] for row in channels],
        bars=True,
        hatched=[row.is_outlier for row in channels],
        labels=[f"{row.times_mean:.1f}×" for row in channels],
    )
    return Chart(
        _channels_alt(block, place, channels),
        [bars],
        Axis("channel"),
        Axis("× mean |x|", (0, 1.2 * max([*bars.y, factor]))),
        height=235,
        still=True,
        level=factor,
    )


def _channels_alt(block: int, place: str, channels: Sequence[ChannelMagnitude]) -> str:
    if not channels:
        return f"{PLACES[place]} of block {block}: no channels were recorded."
    outliers = [str(row.channel) for row in channels if row.is_outlier]
    first = channels[0]
    return (
        f"{PLACES[place]} of block {block}: the largest channel is {first.channel} at "
        f"{first.times_mean:.1f} times the mean |x|. "
        + (f"Outliers: {', '.join(outliers)}." if outliers else "No outlier.")
    )


def _legend() -> list[Trace]:
    """Keys without data, in grey because the panels have colours of their own."""
    keys = (
        ("maximum |x|", {"symbol": "diamond-open", "size": 8}),
        ("mean |x|", {"symbol": "circle", "size": 8}),
        ("25–75 %", {"symbol": "square", "size": 13, "opacity": 0.6}),
        ("5–95 %", {"symbol": "square", "size": 13, "opacity": 0.3}),
    )
    return [trace(Series(name, [None], [None], [""], GREY, **look)) for name, look in keys]


def _panel(rows: Sequence[Row], colour: str) -> list[Trace]:
    blocks, words = [row["block"] for row in rows], [_hover(row) for row in rows]
    ids = [point_id("block", block) for block in blocks]
    means = [_positive(row["mean"]) for row in rows]
    peaks = [_positive(row["maximum"]) for row in rows]
    line = Series("mean |x|", blocks, means, words, colour, symbol="circle", dash="solid", ids=ids)
    marks = Series("maximum |x|", blocks, peaks, words, GREY, symbol="diamond-open", ids=ids)
    return [
        *_band(rows, 0.05, 0.95, colour, 0.16),
        *_band(rows, 0.25, 0.75, colour, 0.32),
        *(trace(series, showlegend=False) for series in (line, marks)),
    ]


def _band(rows: Sequence[Row], low: float, high: float, colour: str, opacity: float) -> list[Trace]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    common = {
        "type": "scatter",
        "x": [row["block"] for row in rows],
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    fill = {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},{opacity})"}
    return [
        {"y": [_quantile(row, low) for row in rows], **common},
        {"y": [_quantile(row, high) for row in rows], **fill, **common},
    ]


def _quantile(row: Row, level: float) -> float:
    return _positive(row[QUANTILE.format(level)])


def _positive(value: float) -> float:
    return max(float(value), FLOOR)


def _hover(row: Row) -> str:
    return (
        f"<b>Block {row['block']}</b><br>mean |x| {row['mean']:.3g}"
        f"<br>middle half {_quantile(row, 0.25):.3g} to {_quantile(row, 0.75):.3g}"
        f"<br>5–95 % {_quantile(row, 0.05):.3g} to {_quantile(row, 0.95):.3g}"
        f"<br>maximum {row['maximum']:.4g}"
    )
