"""All blocks at a glance: which heads would go, and the similarity graph in three counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.charts import theme
from app.charts.chart import Row, Series
from app.charts.figure import STILL_LEGEND, Trace, frame, picture, ring, trace
from app.charts.picks import point_id
from app.charts.plan_map import width_rows
from app.charts.theme import ATTENTION, FFN, GREY, KEPT, MARKED, PRUNED, SKY
from pruning.artifacts.plan import BY_HAND, SIMILARITY, ModulePlan, Plan
from pruning.planning.analysis import SimilarityCount

COUNT_ROW = 58
GAP = 0.03
"""Between two rows, as a share of the height."""
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
    heads, blocks = max(row["heads"] for row in rows), len(rows)
    strip = min(max(heads * 15, 120), 420)
    traces = _head_traces(plan, size=min(9.0, max(4.0, 0.6 * strip / heads)))
    if selected is not None:
        traces.append(ring([open_block], [selected], "selected", 16, 2.5))
    span = {"range": [heads - 0.4, -0.6], "dtick": 1 if heads <= 12 else 4, "showgrid": False}
    axes: list[dict[str, Any]] = [{"title": {"text": "head"}, **span}]
    for name, (column, words, colour) in COUNTED.items():
        values = [row[column] for row in rows]
        most = max(1, *values)
        axes.append(_axis(name, most * 1.15, tick0=0, dtick=-(-most // 2)))
        traces.append(_bars(name, values, colour, f"{words}: {{}}", row=len(axes)))
    if losses is not None:
        stacked, top = _losses(rows, row=len(axes) + 1)
        traces += stacked
        axes.append(_axis("loss", top * 1.15, nticks=3))
    return picture(
        traces,
        height=strip + (len(axes) - 1) * COUNT_ROW + 90,
        name="overview",
        hovermode="closest",
        bargap=0.35,
        barmode="overlay",
        legend=STILL_LEGEND,
        # fixed margins: to find them out would draw everything twice
        margin={"l": 64, "b": 44},
        xaxis={
            "range": [-0.6, blocks - 0.4],
            "showgrid": False,
            "automargin": False,
            "title": {"text": "block"},
            "dtick": 1 if blocks <= 40 else 5,
            "anchor": _nth("y", len(axes)),
        },
        **_stacked(axes, strip),
        shapes=[_frame(open_block, row) for row in range(1, len(axes) + 1)],
    )


def _axis(title: str, top: float, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, "range": [0, top], **more}


def _stacked(axes: Sequence[Mapping[str, Any]], strip: int) -> dict[str, Any]:
    """``axes`` below each other, over one x axis: ``strip`` pixels for the first, COUNT_ROW for
    each of the others."""
    heights = np.array([strip, *[COUNT_ROW] * (len(axes) - 1)])
    heights = heights / heights.sum() * (1.0 - GAP * (len(axes) - 1))
    tops = 1.0 - np.cumsum(heights + GAP) + heights + GAP
    look = {**theme.AXIS, "fixedrange": True, "automargin": False}
    return {
        _nth("yaxis", row): {**look, "domain": [max(top - height, 0.0), top], **axis}
        for row, (axis, top, height) in enumerate(
            zip(axes, tops.tolist(), heights.tolist(), strict=True), start=1
        )
    }


def _nth(name: str, row: int) -> str:
    """Plotly's name of the axis of a row: the first has no number."""
    return f"{name}{row if row > 1 else ''}"


def _frame(block: int, row: int) -> dict[str, Any]:
    """The frame around the open block in one row."""
    shape = frame((block - 0.5, block + 0.5), (0, 1), 2)
    return {**shape, "yref": f"{_nth('y', row)} domain", "fillcolor": theme.CLEAR}


def _kinds(module: ModulePlan) -> dict[int, str]:
    """The key of :data:`LOOKS` of each head."""
    known = {SIMILARITY: ALIKE, BY_HAND: HAND}
    gone = zip(module.removed, module.criteria, strict=True)
    return (
        dict.fromkeys(range(module.units), STAYS)
        | {head: known.get(criterion, WEAK) for head, criterion in gone}
        | dict.fromkeys(module.held, HELD)
    )


def _head_traces(plan: Plan, size: float) -> list[Trace]:
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


def _losses(rows: Sequence[Row], row: int) -> tuple[list[Trace], float]:
    """Stacked bars, attention and FFN hatched on top, and how high they reach."""
    below, traces = [0.0] * len(rows), []
    for kind, (name, colour) in LOSSES.items():
        values = [cells[_cost(kind)] for cells in rows]
        words = f"loss curve, {name}: {{:.4f}} nats per token"
        hatched = kind == "ffn"
        traces.append(
            _bars(f"loss, {name}", values, colour, words, row=row, hatched=hatched, base=below)
        )
        below = [a + b for a, b in zip(below, values, strict=True)]
    return traces, max(*below, 1e-9)


def _bars(
    name: str,
    values: Sequence[float],
    colour: str,
    words: str,
    *,
    row: int,
    hatched: bool = False,
    **more: Any,
) -> Trace:
    """Bars in a ``row``; ``words`` of a bar, with {} for its value."""
    blocks = range(len(values))
    texts = [f"block {block}\n{words.format(values[block])}" for block in blocks]
    ids = [point_id("block", block) for block in blocks]
    bars = Series(name, blocks, values, texts, colour, bars=True, hatched=hatched, ids=ids)
    return trace(bars, showlegend=False, yaxis=_nth("y", row), **more)
