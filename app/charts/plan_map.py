"""What stays and what goes: per block, and head by head."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from app.charts import theme
from app.charts.chart import Axis, Chart, Row, Series, block_axis, number_ticks
from app.charts.picks import point_id
from pruning.artifacts.plan import Plan

Units = Literal["heads", "channels"]
"""The columns of :func:`width_rows` that a chart shows."""
NAMES: dict[Units, str] = {"heads": "heads", "channels": "FFN channels"}
COLOURS: dict[Units, str] = {"heads": theme.ATTENTION, "channels": theme.FFN}
PERCENT = Axis("kept, %", (0, 103), {value: str(value) for value in (0, 25, 50, 75, 100)})


def width_rows(plan: Plan) -> list[Row]:
    """The widths that each block keeps."""
    return [
        {
            "block": index,
            "heads": block.attention.units,
            "heads_kept": width.heads,
            "kv_heads_kept": width.kv_heads,
            "channels": block.ffn.units,
            "channels_kept": width.channels,
        }
        for index, (block, width) in enumerate(zip(plan.blocks, plan.widths, strict=True))
    ]


def shares(rows: list[Row], units: Units) -> list[float]:
    """The share that each block keeps, in percent."""
    return [100 * row[f"{units}_kept"] / row[units] for row in rows]


def block_widths(plan: Plan) -> Chart:
    """Share of heads and of FFN channels that each block keeps. Bars carry the id
    ``block:index``."""
    rows = width_rows(plan)
    return Chart(
        f"Share that each of {len(rows)} blocks keeps: {_sum(rows, 'heads')} and "
        f"{_sum(rows, 'channels')} in all.",
        [_kept(rows, "heads"), _kept(rows, "channels")],
        block_axis(range(len(rows))),
        PERCENT,
        rows,
        height=220,
    )


def ffn_share(plan: Plan) -> Chart:
    """Share of FFN channels that each block keeps; the hollow rest of the bar goes."""
    rows = width_rows(plan)
    kept = _kept(rows, "channels")
    gone = Series(
        "pruned",
        kept.x,
        [100 - share or None for share in shares(rows, "channels")],
        [f"block {i}: {100 - share:.1f}% pruned" for i, share in enumerate(kept.y)],
        theme.CLEAR,
        bars=True,
        outline=theme.PRUNED,
        ids=kept.ids,
    )
    return Chart(
        f"Share of FFN channels that each of {len(rows)} blocks keeps: {_sum(rows, 'channels')} "
        "in all.",
        [kept, gone],
        block_axis(range(len(rows))),
        PERCENT,
        rows,
        stacked=True,
        height=240,
    )


def _kept(rows: list[Row], units: Units) -> Series:
    name = f"{NAMES[units]} kept"
    return Series(
        name,
        [row["block"] for row in rows],
        shares(rows, units),
        [f"block {r['block']}: {r[f'{units}_kept']:,} of {r[units]:,} {name}" for r in rows],
        COLOURS[units],
        bars=True,
        hatched=units == "channels",
        ids=[point_id("block", row["block"]) for row in rows],
    )


def _sum(rows: list[Row], units: Units) -> str:
    kept, every = (sum(row[column] for row in rows) for column in (f"{units}_kept", units))
    return f"{kept:,} of {every:,} {NAMES[units]}"


def head_rows(plan: Plan) -> list[Row]:
    """Every head, whether it stays and why it goes."""
    return [
        {"block": index, "head": head, "kept": head not in reasons, "reason": reasons.get(head, "")}
        for index, block in enumerate(plan.blocks)
        for reasons in [block.attention.reasons()]
        for head in range(block.attention.units)
    ]


def head_map(plan: Plan) -> Chart:
    """Blocks × heads: a filled square stays, a ✕ goes; the reason in its words. Marks carry the
    id ``block:index:head``."""
    rows, blocks = head_rows(plan), len(plan.blocks)
    kept, gone = ([row for row in rows if row["kept"] == stays] for stays in (True, False))
    heads = max(row["head"] for row in rows) + 1
    side = max(5, min(14, 330 // heads, 800 // blocks))
    return Chart(
        f"Map of {blocks} blocks and their heads: {len(kept)} are kept (squares), "
        f"{len(gone)} are pruned (crosses).",
        [
            _heads("kept", kept, theme.KEPT, "square", side),
            _heads("pruned", gone, theme.PRUNED, "x-thin-open", max(4, side - 4)),
        ],
        replace(block_axis(range(blocks)), grid=False),
        Axis("head", (heads - 0.4, -0.6), number_ticks(range(heads)), grid=False),
        rows,
        height=110 + heads * (side + 6),
    )


def _heads(name: str, rows: list[Row], colour: str, symbol: str, size: int) -> Series:
    return Series(
        f"{name} ({len(rows)})",
        [row["block"] for row in rows],
        [row["head"] for row in rows],
        [
            f"block {row['block']}, head {row['head']}: {name}\n{row['reason']}".rstrip()
            for row in rows
        ],
        colour,
        symbol=symbol,
        size=size,
        ids=[point_id("block", row["block"], row["head"]) for row in rows],
    )
