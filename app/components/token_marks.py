"""A passage as HTML, each token marked by how much less likely it became."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.charts.theme import BLUE, VERMILLION

STEPS = (
    (3.0, f"background:{VERMILLION}66;border-bottom:4px double {VERMILLION}", "3 nats or more"),
    (1.0, f"background:{VERMILLION}40;border-bottom:2px solid {VERMILLION}", "1 to 3 nats"),
    (0.3, f"background:{VERMILLION}1f;border-bottom:2px dotted {VERMILLION}", "0.3 to 1 nats"),
)
"""Least rise in nats, look, and words; an underline tells the steps apart without colour."""

LIKELIER = (f"background:{BLUE}24;border-top:2px dashed {BLUE}", "likelier by 0.3 nats or more")
BOX = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:2.1;font-size:1rem"


def look(rise: float) -> str:
    """The style of a token whose negative log-likelihood rose by ``rise`` nats; '' for none."""
    for least, style, _ in STEPS:
        if rise >= least:
            return style
    return LIKELIER[0] if rise <= -0.3 else ""


def passage_html(pieces: Sequence[str], dense: Sequence[float], pruned: Sequence[float]) -> str:
    """``pieces`` [s] with the losses [s - 1] of tokens 2 to s; everything is escaped."""
    parts = [f"<span>{escape(pieces[0])}</span>"]
    for piece, before, after in zip(pieces[1:], dense, pruned, strict=True):
        style, tip = look(after - before), f"{before:.2f} → {after:.2f} nats"
        parts.append(f'<span style="{style}" title="{tip}">{escape(piece)}</span>')
    return f'<div style="{BOX}">{"".join(parts)}</div>'


def legend_html() -> str:
    """What the marks mean."""
    looks = [*((style, words) for _, style, words in reversed(STEPS)), LIKELIER]
    marks = "".join(
        f'<span style="margin-right:1.2em;white-space:nowrap"><span style="{style};padding:0 .3em">'
        f"word</span> {words}</span>"
        for style, words in looks
    )
    return f'<div style="font-size:.85rem;line-height:2">Less likely by: {marks}</div>'
