"""What can be switched off, what follows a sentence then, and each head of a block alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.charts import theme
from app.charts.chart import Axis, Chart, Row, Series, block_axis, number_ticks
from app.charts.picks import point_id
from pruning.artifacts.ablation import Ablation, Continued, LeaveOneOut, Predictor
from pruning.artifacts.shapes import ModelShape

FFN, BLOCK = "FFN", "block"
"""Rows below the heads."""
GAP = 0.4
"""What sets these rows off, in rows."""


def unit_rows(shape: ModelShape, off: Ablation) -> list[Row]:
    """Every head, FFN and block, and whether it is off."""
    whole, shares = set(off.blocks), dict(off.ffn)
    rows: list[Row] = []
    for index, block in enumerate(shape.blocks):
        gone = index in whole
        rows += [
            {"block": index, "unit": head, "off": float(gone or (index, head) in off.heads)}
            for head in range(block.attention.units)
        ]
        rows.append({"block": index, "unit": FFN, "off": 1.0 if gone else shares.get(index, 0.0)})
        rows.append({"block": index, "unit": BLOCK, "off": float(gone)})
    return rows


def unit_map(shape: ModelShape, off: Ablation, ranks: Sequence[Sequence[int]]) -> Chart:
    """Blocks along x; heads down, then the FFN and the block as a whole. A filled square is at
    work, a ✕ is off. ``ranks`` [blocks][heads]: places by importance, 1 the weakest. Marks carry
    the id ``head:block:number``, ``ffn:block`` or ``block:block``."""
    rows = unit_rows(shape, off)
    heads, blocks = max(b.attention.units for b in shape.blocks), len(shape.blocks)
    side = max(4, min(8, 330 // heads, 270 // blocks))  # apart on a phone too
    places = {FFN: heads + GAP, BLOCK: heads + 1 + 2 * GAP}
    ticks = {**number_ticks(range(heads)), **{place: name for name, place in places.items()}}
    kinds = {"heads": theme.ATTENTION, FFN: theme.FFN, BLOCK: theme.GREY}
    series = []
    for name, colour in kinds.items():
        own = [row for row in rows if _kind(row) == name and not row["off"]]
        series.append(_units(name, own, places, ranks, colour, "square", side))
    gone = [row for row in rows if row["off"]]
    series.append(_units("off", gone, places, ranks, theme.PRUNED, "x-thin-open", side - 2))
    return Chart(
        f"Map of {blocks} blocks with their heads, FFN and themselves; off: {off.words()}.",
        [one for one in series if one.x],
        replace(block_axis(range(blocks)), grid=False),
        Axis("head", (places[BLOCK] + 0.7, -0.7), ticks, grid=False),
        rows,
        height=120 + (heads + 3) * (side + 11),
        still=True,
    )


def _kind(row: Row) -> str:
    return row["unit"] if row["unit"] in (FFN, BLOCK) else "heads"


def _units(
    name: str,
    rows: list[Row],
    places: dict[str, float],
    ranks: Sequence[Sequence[int]],
    colour: str,
    symbol: str,
    size: int,
) -> Series:
    return Series(
        name,
        [row["block"] for row in rows],
        [places.get(row["unit"], row["unit"]) for row in rows],
        [_words(row, ranks) for row in rows],
        colour,
        symbol=symbol,
        size=size,
        ids=[_id(row) for row in rows],
    )


def _id(row: Row) -> str:
    if _kind(row) == "heads":
        return point_id("head", row["block"], row["unit"])
    return point_id(row["unit"].lower(), row["block"])


def _words(row: Row, ranks: Sequence[Sequence[int]]) -> str:
    block, unit = row["block"], row["unit"]
    state = f"{row['off']:.0%} off" if unit == FFN and row["off"] else "off" * bool(row["off"])
    if unit == BLOCK:
        return f"block {block} as a whole\n{state}".rstrip()
    if unit == FFN:
        return f"FFN of block {block}\n{state}".rstrip()
    rank = f"importance: rank {ranks[block][unit]} of {len(ranks[block])} (1 = weakest)"
    return f"block {block}, head {unit}\n{rank}\n{state}".rstrip()


def next_tokens(found: Continued) -> Chart:
    """The probabilities of the likeliest next tokens, before and after, side by side."""
    names = [shown(token.text) for token in found.tokens]
    numbers = range(len(names))
    sides = {
        "dense": ([t.before for t in found.tokens], theme.BEFORE, False),
        "switched off": ([t.after for t in found.tokens], theme.KEPT, True),
    }
    first = max(found.tokens, key=lambda token: token.after)
    return Chart(
        f"Probabilities of {len(names)} tokens that may follow: the dense model expects "
        f"{names[0]!r} most ({found.tokens[0].before:.0%}), the changed one "
        f"{shown(first.text)!r} ({first.after:.0%}).",
        [
            Series(
                side,
                numbers,
                [100 * value for value in values],
                [f"{names[n]}\n{side}: {values[n]:.2%}" for n in numbers],
                colour,
                bars=True,
                hatched=hatched,
            )
            for side, (values, colour, hatched) in sides.items()
        ],
        Axis("", (-0.6, len(names) - 0.4), dict(zip(map(float, numbers), names, strict=True))),
        Axis("probability, %"),
        [
            {"token": token.text, "dense": token.before, "switched_off": token.after}
            for token in found.tokens
        ],
        height=260,
        still=True,
    )


def shown(token: str) -> str:
    """A token with its blanks in sight."""
    return token.replace("\n", "⏎").replace(" ", "␣") or "∅"


def foretold(found: LeaveOneOut, predictor: Predictor) -> Chart:
    """What each head changes when it alone is off, against what ``predictor`` says of it; marks
    carry the id ``head:block:number``."""
    real = [change.kl for change in found.changes]
    return Chart(
        f"The {len(real)} heads of block {found.block}, each switched off alone: divergence from "
        f"{min(real):.4f} to {max(real):.4f} nats against {predictor.title}; "
        f"{rank_words(predictor)}.",
        [
            Series(
                "heads",
                predictor.values,
                real,
                [
                    f"head {head}\nKL {change.kl:.4f} nats, loss {change.rise:+.4f} nats\n"
                    f"{predictor.title}: {value:.4g}"
                    for head, (change, value) in enumerate(
                        zip(found.changes, predictor.values, strict=True)
                    )
                ],
                theme.ATTENTION,
                symbol="circle",
                size=11,
                labels=[str(head) for head in range(len(real))],
                ids=[point_id("head", found.block, head) for head in range(len(real))],
            )
        ],
        Axis(predictor.title),
        Axis("KL with the head off, nats"),
        head_rows(found),
        height=340,
        still=True,
    )


def rank_words(predictor: Predictor) -> str:
    """``Spearman's ρ = 0.73``."""
    rho = predictor.rank_correlation
    return "nothing to rank" if rho is None else f"Spearman's ρ = {rho:.2f}"


def head_rows(found: LeaveOneOut) -> list[Row]:
    """Each head of the block: what it changes alone, and what foretold it."""
    return [
        {
            "block": found.block,
            "head": head,
            "kl_nats": change.kl,
            "js_nats": change.js,
            "loss_rise_nats": change.rise,
            **{predictor.name: predictor.values[head] for predictor in found.predictors},
        }
        for head, change in enumerate(found.changes)
    ]
