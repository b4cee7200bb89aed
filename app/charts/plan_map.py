"""What stays and what goes: per block, and head by head."""

from __future__ import annotations

import plotly.graph_objects as go

from app.charts import theme
from app.charts.picks import point_id
from pruning.artifacts.plan import Plan

_AS_BEFORE = {"marker": {"opacity": 1}}
"""What a click did not pick looks like all else: the frame shows the open block."""


def block_widths(plan: Plan, height: int = 300, *, open_block: int | None = None) -> go.Figure:
    """Share of heads and of FFN channels that each block keeps, in percent. Bars carry the id
    ``block:index``."""
    blocks = list(range(len(plan.blocks)))
    figure = go.Figure()
    for kind, name, colour, pattern in (
        ("attention", "heads kept", theme.ATTENTION, ""),
        ("ffn", "FFN channels kept", theme.FFN, "/"),
    ):
        modules = [block.module(kind) for block in plan.blocks]
        kept = [module.units - len(module.removed) for module in modules]
        figure.add_bar(
            x=blocks,
            y=[100 * k / m.units for k, m in zip(kept, modules, strict=True)],
            name=name,
            marker={
                "color": colour,
                "pattern": {"shape": pattern, "size": 6, "solidity": 0.25, "fillmode": "overlay"},
            },
            customdata=[point_id("block", index) for index in blocks],
            hovertext=[
                f"block {index}: {k:,} of {m.units:,} {name}"
                for index, (k, m) in enumerate(zip(kept, modules, strict=True))
            ],
            hoverinfo="text",
            unselected=_AS_BEFORE,
        )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.05)
    theme.styled(figure, height=height)
    figure.update_yaxes(title="kept, %", range=[0, 103])
    figure.update_xaxes(title="block", dtick=_tick(len(blocks)), range=[-0.7, len(blocks) - 0.3])
    _frame(figure, open_block, len(blocks))
    return figure


def head_map(plan: Plan, height: int | None = None, *, open_block: int | None = None) -> go.Figure:
    """Blocks × heads: a filled square stays, a hollow ✕ goes; the reason on hover. Marks carry the
    id ``block:index:head``."""
    heads = max(block.attention.units for block in plan.blocks)
    kept, gone = _Points(), _Points()
    for index, block in enumerate(plan.blocks):
        reasons = block.attention.reasons()
        for head in range(block.attention.units):
            where = f"block {index}, head {head}"
            if head in reasons:
                gone.add(index, head, f"{where}: pruned<br>{reasons[head]}")
            else:
                kept.add(index, head, f"{where}: kept")
    side = max(5, min(14, 330 // heads, 800 // len(plan.blocks)))
    figure = go.Figure(
        [
            kept.trace("kept", {"symbol": "square", "size": side, "color": theme.KEPT}),
            gone.trace(
                "pruned",
                {
                    "symbol": "x-thin-open",
                    "size": max(4, side - 4),
                    "color": theme.PRUNED,
                    "line": {"width": 2, "color": theme.PRUNED},
                },
            ),
        ]
    )
    theme.styled(figure, height=height or 110 + heads * (side + 6))
    figure.update_xaxes(
        title="block",
        dtick=_tick(len(plan.blocks)),
        showgrid=False,
        range=[-0.7, len(plan.blocks) - 0.3],
    )
    figure.update_yaxes(title="head", dtick=_tick(heads), showgrid=False, range=[heads - 0.4, -0.6])
    _frame(figure, open_block, len(plan.blocks))
    return figure


def ffn_share(plan: Plan, height: int = 240, *, open_block: int | None = None) -> go.Figure:
    """Share of FFN channels that each block keeps; the hollow rest of the bar goes. Bars carry the
    id ``block:index``."""
    modules = [block.ffn for block in plan.blocks]
    kept = [100 * (m.units - len(m.removed)) / m.units for m in modules]
    ids = [point_id("block", index) for index in range(len(kept))]
    stays = [
        f"block {i}: {m.units - len(m.removed):,} of {m.units:,} channels kept"
        for i, m in enumerate(modules)
    ]
    goes = [f"block {i}: {100 - share:.1f}% pruned" for i, share in enumerate(kept)]
    figure = go.Figure()
    figure.add_bar(
        x=list(range(len(kept))),
        y=kept,
        name="kept",
        marker={
            "color": theme.FFN,
            "pattern": {"shape": "/", "size": 6, "solidity": 0.25, "fillmode": "overlay"},
        },
        customdata=ids,
        hovertext=stays,
        hoverinfo="text",
        unselected=_AS_BEFORE,
    )
    figure.add_bar(
        x=list(range(len(kept))),
        y=[100 - share or None for share in kept],
        name="pruned",
        marker={"color": theme.CLEAR, "line": {"color": theme.PRUNED, "width": 1}},
        customdata=ids,
        hovertext=goes,
        hoverinfo="text",
        unselected=_AS_BEFORE,
    )
    figure.update_layout(barmode="stack", bargap=0.25)
    theme.styled(figure, height=height)
    figure.update_layout(legend={"traceorder": "normal"})
    figure.update_yaxes(title="FFN channels, %", range=[0, 103])
    figure.update_xaxes(title="block", dtick=_tick(len(kept)), range=[-0.7, len(kept) - 0.3])
    _frame(figure, open_block, len(kept))
    return figure


def _frame(figure: go.Figure, open_block: int | None, blocks: int) -> None:
    if open_block is not None and open_block < blocks:
        figure.add_vrect(
            x0=open_block - 0.5,
            x1=open_block + 0.5,
            fillcolor=theme.CLEAR,
            line={"color": theme.SELECTED, "width": 2},
        )


class _Points:
    """Coordinates and hover texts of one kind of head."""

    def __init__(self) -> None:
        self.x: list[int] = []
        self.y: list[int] = []
        self.text: list[str] = []

    def add(self, x: int, y: int, text: str) -> None:
        self.x.append(x)
        self.y.append(y)
        self.text.append(text)

    def trace(self, name: str, marker: dict) -> go.Scatter:
        return go.Scatter(
            x=self.x,
            y=self.y,
            mode="markers",
            name=f"{name} ({len(self.x)})",
            marker=marker,
            customdata=[point_id("block", *place) for place in zip(self.x, self.y, strict=True)],
            text=self.text,
            hovertemplate="%{text}<extra></extra>",
            unselected=_AS_BEFORE,
        )


def _tick(count: int) -> int:
    return 1 if count <= 12 else 2 if count <= 24 else 4 if count <= 48 else 8
