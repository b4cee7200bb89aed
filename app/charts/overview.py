"""All blocks at a glance: which heads would go, and the similarity graph in three counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.charts.chart import Row, Series
from app.charts.figure import STILL_LEGEND, frame_block, ring, still, trace
from app.charts.picks import point_id
from app.charts.plan_map import width_rows
from app.charts.theme import ATTENTION, FFN, GREY, KEPT, MARKED, PRUNED, SKY, styled
from pruning.artifacts.plan import BY_HAND, SIMILARITY, ModulePlan, Plan
from pruning.planning.analysis import SimilarityCount

COUNT_ROW = 58
QUIET = 0.8
"""Opacity of heads that stay: those that go are to be seen first."""
COUNTED = {
    "edges": ("edges", "edges", GREY),
    "groups": ("groups_alike", "groups of alike heads", SKY),
    "gone": ("heads_removed", "heads removed", PRUNED),
}
"""By the title of the row: the column of :func:`overview_rows`, its words and its colour."""
LOSSES = {"attention": ("attention", ATTENTION), "ffn": ("FFN", FFN)}
STAYS, ALIKE, WEAK, HAND = "stays", "✕ alike", "○ weak", "◇ marked drop"
HELD = "▣ marked keep"
LOOKS = {
    HELD: ("square", KEPT),
    STAYS: ("square", KEPT),
    ALIKE: ("x-thin", PRUNED),
    WEAK: ("circle-open", PRUNED),
    HAND: ("diamond-open", MARKED),
}

Losses = Mapping[str, Sequence[float]]
"""What each block costs by the loss curves, in nats per token: ``attention`` and ``ffn``."""


def overview_rows(
    plan: Plan, counts: Sequence[SimilarityCount], losses: Losses | None
) -> list[Row]:
    """The similarity graph of each block in numbers, what goes, and what it costs by the loss
    curves."""
    return [
        {
            **row,
            "heads_removed": row["heads"] - row["heads_kept"],
            "edges": count.edges,
            "groups_alike": count.groups,
            **{_cost(kind): losses[kind][row["block"]] for kind in losses or {}},
        }
        for row, count in zip(width_rows(plan), counts, strict=True)
    ]


def _cost(kind: str) -> str:
    return f"loss_curve_{kind}_nats"


def overview_alt(plan: Plan, counts: Sequence[SimilarityCount]) -> str:
    """The overview in one sentence."""
    rows = overview_rows(plan, counts, None)
    edges, groups, gone, heads = (
        sum(row[column] for row in rows)
        for column in ("edges", "groups_alike", "heads_removed", "heads")
    )
    return (
        f"Overview of {len(rows)} blocks: {edges} edges in {groups} groups of alike heads; "
        f"{gone} of {heads} heads would go."
    )


def blocks_overview(
    plan: Plan,
    counts: Sequence[SimilarityCount],
    *,
    open_block: int,
    selected: int | None = None,
    losses: Losses | None = None,
) -> go.Figure:
    """Blocks along x; heads of each block down the first row, then edges, groups, heads gone and,
    with ``losses``, what each block costs.

    Marks carry the id ``block:index:head``, bars ``block:index``.
    """
    rows = overview_rows(plan, counts, losses)
    heads = max(row["heads"] for row in rows)
    strip = min(max(heads * 15, 120), 420)
    below = len(COUNTED) + (losses is not None)
    figure = make_subplots(
        rows=1 + below,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.03,
        row_heights=[strip, *[COUNT_ROW] * below],
    )
    for marks in _head_traces(plan, size=min(9.0, max(4.0, 0.6 * strip / heads))):
        figure.add_trace(marks, row=1, col=1)
    for place, (name, (column, words, colour)) in enumerate(COUNTED.items(), start=2):
        values = [row[column] for row in rows]
        most = max(1, *values)
        figure.add_trace(_bars(name, values, colour, f"{words}: {{}}"), row=place, col=1)
        figure.update_yaxes(
            title_text=name, range=[0, most * 1.15], row=place, col=1, tick0=0, dtick=-(-most // 2)
        )
    if losses is not None:
        _add_losses(figure, rows, place=1 + below)
    if selected is not None:
        figure.add_trace(ring([open_block], [selected], "selected", 16, 2.5), row=1, col=1)
    _lay_out(figure, rows, strip, below)
    frame_block(figure, open_block)
    return figure


def _lay_out(figure: go.Figure, rows: Sequence[Row], strip: int, below: int) -> None:
    """Axes and margins: a row of ``strip`` pixels for the heads and ``below`` small ones."""
    heads, blocks = max(row["heads"] for row in rows), len(rows)
    styled(figure, height=strip + below * COUNT_ROW + 90)
    # fixed margins: to find them out would draw everything twice
    still(figure, "overview", hovermode="closest", bargap=0.35, legend=STILL_LEGEND)
    figure.update_layout(margin={"l": 64, "b": 44})
    figure.update_xaxes(range=[-0.6, blocks - 0.4], showgrid=False, automargin=False)
    step = 1 if blocks <= 40 else 5
    figure.update_xaxes(title_text="block", dtick=step, row=1 + below, col=1)
    figure.update_yaxes(automargin=False)
    figure.update_yaxes(
        title_text="head",
        range=[heads - 0.4, -0.6],
        dtick=1 if heads <= 12 else 4,
        showgrid=False,
        row=1,
        col=1,
    )


def _kinds(module: ModulePlan) -> dict[int, str]:
    """The key of :data:`LOOKS` of each head."""
    known = {SIMILARITY: ALIKE, BY_HAND: HAND}
    gone = zip(module.removed, module.criteria, strict=True)
    return (
        dict.fromkeys(range(module.units), STAYS)
        | {head: known.get(criterion, WEAK) for head, criterion in gone}
        | dict.fromkeys(module.held, HELD)
    )


def _head_traces(plan: Plan, size: float) -> list[go.Scatter]:
    points: dict[str, list[tuple[int, int, str]]] = {name: [] for name in LOOKS}
    for index, block in enumerate(plan.blocks):
        reasons = block.attention.reasons()
        for head, name in _kinds(block.attention).items():
            text = f"goes: {reasons[head]}" if head in reasons else "stays"
            points[name].append((index, head, f"block {index}, head {head}\n{text}"))
    return [
        trace(
            Series(
                name,
                *zip(*members, strict=True),
                LOOKS[name][1],
                symbol=LOOKS[name][0],
                size=size,
                opacity=QUIET if name == STAYS else 1,
                outline=MARKED if name == HELD else "",
                ids=[point_id("block", index, head) for index, head, _ in members],
            )
        )
        for name, members in points.items()
        if members
    ]


def _add_losses(figure: go.Figure, rows: Sequence[Row], place: int) -> None:
    """Stacked bars: attention, and FFN hatched on top."""
    below = [0.0] * len(rows)
    for kind, (name, colour) in LOSSES.items():
        values = [row[_cost(kind)] for row in rows]
        words = f"loss curve, {name}: {{:.4f}} nats per token"
        bars = _bars(f"loss, {name}", values, colour, words, hatched=kind == "ffn")
        bars.base = below
        figure.add_trace(bars, row=place, col=1)
        below = [a + b for a, b in zip(below, values, strict=True)]
    top = max(*below, 1e-9) * 1.15
    figure.update_yaxes(title_text="loss", range=[0, top], nticks=3, row=place, col=1)
    figure.update_layout(barmode="overlay")


def _bars(
    name: str, values: Sequence[float], colour: str, words: str, hatched: bool = False
) -> go.Bar:
    """``words`` of a bar, with {} for its value."""
    blocks = range(len(values))
    texts = [f"block {block}\n{words.format(values[block])}" for block in blocks]
    ids = [point_id("block", block) for block in blocks]
    bars = Series(name, blocks, values, texts, colour, bars=True, hatched=hatched, ids=ids)
    return trace(bars, showlegend=False)
