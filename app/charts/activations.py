"""How large activations are: per block for the whole model, and in detail for one block."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.charts.picks import point_id
from app.charts.theme import ATTENTION, FFN, GREEN, GREY, PRUNED, SELECTED, styled
from pruning.artifacts.measurement import ActivationSummary, Measurement
from pruning.planning.analysis import ChannelMagnitude

PLACES = {
    "residual": "Residual stream (block input)",
    "attention": "Attention output",
    "ffn": "FFN intermediate",
}
COLOURS = {"residual": GREEN, "attention": ATTENTION, "ffn": FFN}
DASHES = {"residual": "solid", "attention": "dash", "ffn": "dot"}
SYMBOLS = {"residual": "circle", "attention": "square", "ffn": "diamond"}
FLOOR = 1e-6
"""A log axis has no zero: quantiles below this (dead channels) are drawn here."""


def magnitude_per_block(measurement: Measurement, *, open_block: int) -> go.Figure:
    """One panel per place, block along x, |x| along a log y: bands of quantiles, mean, maximum.

    The mean and maximum marks carry the id ``block:index``.
    """
    figure = make_subplots(
        rows=1, cols=len(PLACES), subplot_titles=list(PLACES.values()), horizontal_spacing=0.06
    )
    for column, place in enumerate(PLACES, start=1):
        summaries = [block.activations[place] for block in measurement.blocks]
        for trace in _panel(summaries, COLOURS[place]):
            figure.add_trace(trace, row=1, col=column)
        figure.add_vline(x=open_block, line={"color": SELECTED, "width": 2}, row=1, col=column)
    figure.add_traces(_legend())
    styled(figure, height=350)
    figure.update_layout(
        dragmode=False,
        hovermode="closest",
        uirevision="magnitude",
        margin={"t": 64},
        legend={"y": 1.14, "itemclick": False, "itemdoubleclick": False},
    )
    figure.update_xaxes(
        title_text="block", range=[-0.8, len(measurement.blocks) - 0.2], fixedrange=True
    )
    figure.update_yaxes(type="log", fixedrange=True, exponentformat="power", dtick=1)
    figure.update_yaxes(title_text="|x|", row=1, col=1)
    return figure


def magnitude_alt(measurement: Measurement) -> str:
    """The overview in one sentence."""
    parts = []
    for place, title in PLACES.items():
        means = [block.activations[place].mean_absolute for block in measurement.blocks]
        peak = max(block.activations[place].maximum for block in measurement.blocks)
        parts.append(
            f"{title}: mean |x| from {min(means):.3g} to {max(means):.3g}, largest {peak:.3g}"
        )
    return f"Activation magnitude of {len(measurement.blocks)} blocks. {'; '.join(parts)}."


def quantile_profile(activations: dict[str, ActivationSummary]) -> go.Figure:
    """Quantiles of |x| of one block's three places, on a log axis, ending in the maximum."""
    figure = go.Figure()
    for place, title in PLACES.items():
        summary = activations[place]
        names = [f"{100 * level:g}%" for level in summary.levels] + ["max"]
        values = [_positive(value) for value in (*summary.quantiles, summary.maximum)]
        figure.add_trace(
            go.Scatter(
                x=names,
                y=values,
                mode="lines+markers",
                name=title,
                line={"color": COLOURS[place], "width": 2, "dash": DASHES[place]},
                marker={"symbol": SYMBOLS[place], "size": 8},
                hovertemplate=f"{title}<br>%{{x}}: |x| = %{{y:.3g}}<extra></extra>",
            )
        )
    styled(figure, height=320)
    figure.update_layout(dragmode=False)
    figure.update_xaxes(title_text="quantile of |x|", type="category", fixedrange=True)
    figure.update_yaxes(
        title_text="|x|", type="log", exponentformat="power", dtick=1, fixedrange=True
    )
    return figure


def profile_alt(block: int, activations: dict[str, ActivationSummary]) -> str:
    """The profile in one sentence."""
    parts = [
        f"{title}: median {_quantile(summary, 0.5):.3g}, maximum {summary.maximum:.3g}"
        for title, summary in ((PLACES[place], activations[place]) for place in PLACES)
    ]
    return f"Quantiles of |x| in block {block}. {'; '.join(parts)}."


def channel_bars(channels: Sequence[ChannelMagnitude], place: str, factor: float) -> go.Figure:
    """Largest channels of one place as multiples of its mean |x|; outliers are hatched."""
    names = [str(row.channel) for row in channels]
    figure = go.Figure(
        go.Bar(
            x=names,
            y=[row.times_mean for row in channels],
            marker={
                "color": [PRUNED if row.is_outlier else COLOURS[place] for row in channels],
                "pattern": {"shape": ["/" if row.is_outlier else "" for row in channels]},
            },
            text=[f"{row.times_mean:.1f}×" for row in channels],
            textposition="outside",
            cliponaxis=False,
            hovertext=[
                f"channel {row.channel}<br>mean |x| = {row.mean_absolute:.3g}, "
                f"{row.times_mean:.1f} × the mean of all channels"
                + ("<br>outlier" if row.is_outlier else "")
                for row in channels
            ],
            hoverinfo="text",
        )
    )
    figure.add_hline(y=factor, line={"color": PRUNED, "width": 1.5, "dash": "dash"})
    styled(figure, height=235, legend=False)
    top = max([row.times_mean for row in channels] + [factor])
    figure.update_layout(dragmode=False, margin={"t": 8})
    figure.update_xaxes(title_text="channel", type="category", fixedrange=True)
    figure.update_yaxes(title_text="× mean |x|", range=[0, top * 1.2], fixedrange=True)
    return figure


def channels_alt(block: int, place: str, channels: Sequence[ChannelMagnitude]) -> str:
    """The bars in one sentence."""
    if not channels:
        return f"{PLACES[place]} of block {block}: no channels were recorded."
    outliers = [str(row.channel) for row in channels if row.is_outlier]
    first = channels[0]
    return (
        f"{PLACES[place]} of block {block}: the largest channel is {first.channel} at "
        f"{first.times_mean:.1f} times the mean |x|. "
        + (f"Outliers: {', '.join(outliers)}." if outliers else "No outlier.")
    )


def _legend() -> list[go.Scatter]:
    """Keys without data, in grey because the panels have colours of their own."""
    keys = (
        ("maximum |x|", {"symbol": "diamond-open", "size": 8, "line": {"width": 1.5}}),
        ("mean |x|", {"symbol": "circle", "size": 8}),
        ("25–75 %", {"symbol": "square", "size": 13, "opacity": 0.6}),
        ("5–95 %", {"symbol": "square", "size": 13, "opacity": 0.3}),
    )
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=name,
            marker={"color": GREY, **marker},
            hoverinfo="skip",
        )
        for name, marker in keys
    ]


def _panel(summaries: Sequence[ActivationSummary], colour: str) -> list[go.Scatter]:
    blocks = list(range(len(summaries)))
    ids = [point_id("block", block) for block in blocks]
    return [
        *_band(summaries, 0.05, 0.95, colour, 0.16),
        *_band(summaries, 0.25, 0.75, colour, 0.32),
        go.Scatter(
            x=blocks,
            y=[_positive(summary.mean_absolute) for summary in summaries],
            mode="lines+markers",
            name="mean |x|",
            line={"color": colour, "width": 2},
            marker={"size": 7},
            customdata=ids,
            hovertext=[_hover(block, summary) for block, summary in enumerate(summaries)],
            hoverinfo="text",
            showlegend=False,
            unselected={"marker": {"opacity": 1}},
        ),
        go.Scatter(
            x=blocks,
            y=[_positive(summary.maximum) for summary in summaries],
            mode="markers",
            name="maximum |x|",
            marker={"symbol": "diamond-open", "size": 7, "color": GREY, "line": {"width": 1.5}},
            customdata=ids,
            hovertext=[_hover(block, summary) for block, summary in enumerate(summaries)],
            hoverinfo="text",
            showlegend=False,
            unselected={"marker": {"opacity": 1}},
        ),
    ]


def _band(
    summaries: Sequence[ActivationSummary], low: float, high: float, colour: str, opacity: float
) -> list[go.Scatter]:
    blocks = list(range(len(summaries)))
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    common = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    return [
        go.Scatter(x=blocks, y=[_quantile(s, low) for s in summaries], **common),
        go.Scatter(
            x=blocks,
            y=[_quantile(s, high) for s in summaries],
            fill="tonexty",
            fillcolor=f"rgba({red},{green},{blue},{opacity})",
            **common,
        ),
    ]


def _quantile(summary: ActivationSummary, level: float) -> float:
    return _positive(summary.quantiles[summary.levels.index(level)])


def _positive(value: float) -> float:
    return max(float(value), FLOOR)


def _hover(block: int, summary: ActivationSummary) -> str:
    return (
        f"<b>Block {block}</b><br>mean |x| {summary.mean_absolute:.3g}"
        f"<br>middle half {_quantile(summary, 0.25):.3g} to {_quantile(summary, 0.75):.3g}"
        f"<br>5–95 % {_quantile(summary, 0.05):.3g} to {_quantile(summary, 0.95):.3g}"
        f"<br>maximum {summary.maximum:.4g}"
    )
