"""A passage as HTML, each token marked by how much less likely it became."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.charts.theme import BLUE, VERMILLION

STEPS = (
    (3.0, f"background:{VERMILLION}66;border-bottom:4px double {VERMILLION}", "3 nats or more"),
    (1.0, f"background:{VERMILLION}40;border-bottom:2px solid {VERMILLION}", "1 to 3 nats"),
    (0.3, f"background:{VERMILLION}1f;border-bottom:2px dotted {VERMILLION}", "0.3 to 1 nats"),
)
"""Least increase in nats, look, and words; an underline tells the steps apart without colour."""

LIKELIER = (f"background:{BLUE}24;border-top:2px dashed {BLUE}", "likelier by 0.3 nats or more")
PASSAGE = Markup(
    '<div style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:2.1;font-size:1rem">'
    "<span>{}</span>{}</div>"
)
TOKEN = Markup('<span style="{}" title="{:.2f} → {:.2f} nats">{}</span>')
KEY = Markup(
    '<span style="margin-right:1.2em;white-space:nowrap"><span style="{};padding:0 .3em">word'
    "</span> {}</span>"
)


def look(increase: float) -> str:
    """The style of a token whose negative log-likelihood rose by ``increase`` nats; '' for none."""
    for least, style, _ in STEPS:
        if increase >= least:
            return style
    return LIKELIER[0] if increase <= -0.3 else ""


def passage_html(pieces: Sequence[str], dense: Sequence[float], pruned: Sequence[float]) -> Markup:
    """``pieces`` [s] with the losses [s - 1] of tokens 2 to s; everything is escaped."""
    tokens = (
        TOKEN.format(look(after - before), before, after, piece)
        for piece, before, after in zip(pieces[1:], dense, pruned, strict=True)
    )
    return PASSAGE.format(pieces[0], Markup("").join(tokens))


def legend_html() -> Markup:
    """What the marks mean."""
    keys = [KEY.format(style, words) for _, style, words in reversed(STEPS)]
    marks = Markup(" ").join([*keys, KEY.format(*LIKELIER)])  # a line may end between two
    line = Markup('<div style="font-size:.85rem;line-height:2">Less likely by: {}</div>')
    return line.format(marks)
