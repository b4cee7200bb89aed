"""All blocks at a glance: which heads would go, and the similarity graph in three counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.charts.picks import point_id
from app.charts.theme import ATTENTION, FFN, GREY, KEPT, MARKED, PRUNED, SELECTED, SKY, styled
from pruning.artifacts.plan import BY_HAND, SIMILARITY, Plan
from pruning.planning.analysis import SimilarityCount

COUNT_ROW = 58
QUIET = 0.8
"""Opacity of heads that stay: those that go are to be seen first."""
COUNTED = {"edges": "edges", "groups": "groups of alike heads", "gone": "heads that would go"}
STAYS, ALIKE, WEAK, HAND = "stays", "✕ alike", "○ weak", "◇ marked drop"
HELD = "▣ marked keep"
LOOKS = {
    HELD: ("square", KEPT),
    STAYS: ("square", KEPT),
    ALIKE: ("x-thin", PRUNED),
    WEAK: ("circle-open", PRUNED),
    HAND: ("diamond-open", MARKED),
}


def blocks_overview(
    plan: Plan,
    counts: Sequence[SimilarityCount],
    *,
    open_block: int,
    selected: int | None = None,
    losses: Mapping[str, Sequence[float]] | None = None,
) -> go.Figure:
    """Blocks along x; heads of each block down the first row, then edges, groups, heads gone and,
    with ``losses`` (nats per token by module), what each block is expected to cost.

    Marks carry the id ``block:index:head``, bars ``block:index``.
    """
    heads = max(block.attention.units for block in plan.blocks)
    strip = min(max(heads * 15, 120), 420)
    below = 3 + (losses is not None)
    figure = make_subplots(
        rows=1 + below,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.03,
        row_heights=[strip, *[COUNT_ROW] * below],
    )
    for trace in _head_traces(plan, size=min(9.0, max(4.0, 0.6 * strip / heads))):
        figure.add_trace(trace, row=1, col=1)
    going = [len(block.attention.removed) for block in plan.blocks]
    rows = (
        ("edges", [count.edges for count in counts], GREY),
        ("groups", [count.groups for count in counts], SKY),
        ("gone", going, PRUNED),
    )
    for row, (name, values, colour) in enumerate(rows, start=2):
        figure.add_trace(_bars(name, values, colour), row=row, col=1)
        figure.update_yaxes(
            title_text=name,
            range=[0, max(1, *values) * 1.15],
            row=row,
            col=1,
            tick0=0,
            dtick=-(-max(1, *values) // 2),
        )
    if losses is not None:
        _add_losses(figure, losses, row=1 + below)
    if selected is not None:
        figure.add_trace(_ring(open_block, selected), row=1, col=1)
    styled(figure, height=strip + below * COUNT_ROW + 90)
    figure.add_vrect(x0=open_block - 0.5, x1=open_block + 0.5, line={"color": SELECTED, "width": 2})
    figure.update_layout(
        dragmode=False,
        hovermode="closest",
        bargap=0.35,
        uirevision="overview",
        legend={"itemclick": False, "itemdoubleclick": False},
        # fixed: to find them out would draw everything twice
        margin={"l": 64, "b": 44},
    )
    figure.update_xaxes(
        range=[-0.6, len(plan.blocks) - 0.4], fixedrange=True, showgrid=False, automargin=False
    )
    step = 1 if len(plan.blocks) <= 40 else 5
    figure.update_xaxes(title_text="block", dtick=step, row=1 + below, col=1)
    figure.update_yaxes(fixedrange=True, automargin=False)
    figure.update_yaxes(
        title_text="head",
        range=[heads - 0.4, -0.6],
        dtick=1 if heads <= 12 else 4,
        showgrid=False,
        row=1,
        col=1,
    )
    return figure


def overview_alt(plan: Plan, counts: Sequence[SimilarityCount]) -> str:
    """The overview in one sentence."""
    gone = sum(len(block.attention.removed) for block in plan.blocks)
    total = sum(block.attention.units for block in plan.blocks)
    return (
        f"Overview of {len(plan.blocks)} blocks: {sum(c.edges for c in counts)} edges in "
        f"{sum(c.groups for c in counts)} groups of alike heads; {gone} of {total} heads would go."
    )


def _kind(criterion: str | None) -> str:
    if criterion is None:
        return STAYS
    return {SIMILARITY: ALIKE, BY_HAND: HAND}.get(criterion, WEAK)


def _head_traces(plan: Plan, size: float) -> list[go.Scatter]:
    points: dict[str, list[tuple[int, int, str]]] = {name: [] for name in LOOKS}
    for index, block in enumerate(plan.blocks):
        module = block.attention
        why = dict(zip(module.removed, module.criteria, strict=True))
        reasons = module.reasons()
        for head in range(module.units):
            text = f"goes: {reasons[head]}" if head in reasons else "stays"
            held = head in module.held
            points[HELD if held else _kind(why.get(head))].append((index, head, text))
    traces = []
    for name, members in points.items():
        if not members:
            continue
        symbol, colour = LOOKS[name]
        traces.append(
            go.Scatter(
                x=[index for index, _, _ in members],
                y=[head for _, head, _ in members],
                mode="markers",
                name=name,
                marker={
                    "symbol": symbol,
                    "size": size,
                    "color": colour,
                    "opacity": QUIET if name == STAYS else 1,
                    "line": {
                        "width": 2 if name != STAYS else 0,
                        "color": MARKED if name == HELD else colour,
                    },
                },
                customdata=[point_id("block", index, head) for index, head, _ in members],
                hovertext=[
                    f"block {index}, head {head}<br>{text}" for index, head, text in members
                ],
                hoverinfo="text",
                unselected={"marker": {"opacity": QUIET if name == STAYS else 1}},
            )
        )
    return traces


def _add_losses(figure: go.Figure, losses: Mapping[str, Sequence[float]], row: int) -> None:
    """Stacked bars: attention, and FFN hatched on top."""
    looks = {"attention": (ATTENTION, ""), "ffn": (FFN, "/")}
    below = [0.0] * len(losses["attention"])
    for kind, (colour, hatch) in looks.items():
        name = "FFN" if kind == "ffn" else kind
        bars = _bars("loss", list(losses[kind]), colour)
        bars.update(
            base=below,
            name=f"loss, {name}",
            hovertext=[
                f"block {block}<br>expected loss, {name}: {value:.4f} nats per token"
                for block, value in enumerate(losses[kind])
            ],
        )
        bars.marker.pattern = {"shape": hatch, "size": 5, "fillmode": "overlay"}
        figure.add_trace(bars, row=row, col=1)
        below = [a + b for a, b in zip(below, losses[kind], strict=True)]
    top = max(*below, 1e-9) * 1.15
    figure.update_yaxes(title_text="loss", range=[0, top], nticks=3, row=row, col=1)
    figure.update_layout(barmode="overlay")


def _ring(block: int, head: int) -> go.Scatter:
    return go.Scatter(
        x=[block],
        y=[head],
        mode="markers",
        name="selected",
        marker={"symbol": "circle-open", "size": 16, "color": SELECTED, "line": {"width": 2.5}},
        hoverinfo="skip",
        showlegend=False,
    )


def _bars(name: str, values: Sequence[int], colour: str) -> go.Bar:
    blocks = list(range(len(values)))
    return go.Bar(
        x=blocks,
        y=list(values),
        name=name,
        marker={"color": colour},
        customdata=[point_id("block", block) for block in blocks],
        hovertext=[
            f"block {block}<br>{COUNTED.get(name, name)}: {value}"
            for block, value in enumerate(values)
        ],
        hoverinfo="text",
        showlegend=False,
        unselected={"marker": {"opacity": 1}},
    )
