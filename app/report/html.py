"""The report as one HTML file: charts are inline SVG, nothing is fetched from anywhere."""

from __future__ import annotations

from html import escape
from typing import Any

from app.components import token_marks
from app.components.text import count, size
from app.jobs.compare_tasks import Pair
from app.report import svg

STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:#1f2a30;background:#fff;max-width:60rem;
margin:2rem auto;padding:0 1.25rem}
h1{font-size:1.7rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0;font-size:.9rem}
th,td{border-bottom:1px solid #d9e0e3;padding:.3rem .6rem;text-align:right;vertical-align:top}
th:first-child,td:first-child,
.reasons th:nth-child(3),.reasons td:nth-child(3){text-align:left}
pre{background:#f0f3f4;padding:.8rem;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.82rem}
.two{display:grid;grid-template-columns:1fr 1fr;gap:1rem}.note{color:#53636b;font-size:.88rem}
.box{border:1px solid #d9e0e3;border-radius:.4rem;padding:.7rem}svg{max-width:100%;height:auto}
@media print{body{margin:0;max-width:none;font-size:10.5pt}h2{break-after:avoid}
svg,.box,tr{break-inside:avoid}pre{border:1px solid #ccc;background:none}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The browser itself keeps the report from asking for anything."""


def as_html(model: str, run: Any, found: dict[str, tuple[Any, tuple]]) -> str:
    """``run``: a PruneRun (its models are not touched); ``found``: by job kind, the result of
    each comparison and what it was about."""
    title = f"{escape(model)}, pruned"
    parts = [f"<h1>{title}</h1>", _headline(run.report), _sizes(run.report)]
    parts += [_SECTIONS[kind](*found[kind]) for kind in _SECTIONS if kind in found]
    parts.append("<h2>What was kept</h2>" + svg.widths(run.plan) + svg.heads(run.plan))
    if run.events:
        parts.append("<h2>Reconstruction error</h2>" + svg.errors(run.events))
    parts += [_blocks(run.plan), _origin(run)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _headline(report: Any) -> str:
    return (
        f'<p class="note">{report.kept_block_parameters:.1%} of the block parameters are kept. '
        "Pruned with Headroom: no retraining.</p>"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _sizes(report: Any) -> str:
    rows = []
    for label, field, unit in (
        ("Parameters", "parameters", count),
        ("Parameters of the blocks", "block_parameters", count),
        ("Weights", "bytes", size),
        ("FLOPs per token", "flops_per_token", count),
    ):
        old, new = getattr(report.before, field), getattr(report.after, field)
        rows.append([label, unit(old), unit(new), f"{100 * (new - old) / old:+.1f}%"])
    return "<h2>Size</h2>" + _table(["", "dense", "pruned", "change"], rows)


def _perplexity(pair: Pair, _: tuple) -> str:
    old, new = pair.before.perplexity, pair.after.perplexity
    rows = [["Perplexity", f"{old:.3f}", f"{new:.3f}", f"{new / old:.4f}"]]
    note = f'<p class="note">{escape(pair.after.protocol())}</p>'
    return "<h2>Perplexity</h2>" + _table(["", "dense", "pruned", "ratio"], rows) + note


def _speed(pair: Pair, _: tuple) -> str:
    old, new = pair.before, pair.after
    rows = [
        ["Reading", f"{old.prefill:,.0f}", f"{new.prefill:,.0f}"],
        ["Writing", f"{old.decode:,.1f}", f"{new.decode:,.1f}"],
    ]
    return "<h2>Tokens per second</h2>" + _table(["", "dense", "pruned"], rows)


def _texts(pair: Pair, about: tuple) -> str:
    boxes = "".join(
        f'<div class="box"><b>{name}</b><pre>{escape(about[1] + side.text)}</pre></div>'
        for name, side in (("Dense", pair.before), ("Pruned", pair.after))
    )
    return f'<h2>The same prompt</h2><div class="two">{boxes}</div>'


def _tokens(found: Any, _: tuple) -> str:
    passage = max(found.passages, key=lambda one: one.mean_rise)
    marked = token_marks.passage_html(passage.pieces, passage.dense, passage.pruned)
    rows = [
        [
            item.pieces[place].strip() or "space",
            f"{item.dense[place - 1]:.2f}",
            f"{item.pruned[place - 1]:.2f}",
            f"{rise:+.2f}",
        ]
        for index, place, rise in found.worst(15)
        for item in [found.passages[index]]
    ]
    return (
        "<h2>Tokens whose likelihood fell most</h2>"
        f'<p class="note">{escape(found.corpus)} ({found.split}): the window that suffered most of '
        f"{len(found.passages)}, {passage.mean_rise:+.2f} nats per token.</p>"
        f'{token_marks.legend_html()}<div class="box">{marked}</div>'
        + _table(["token", "dense, nats", "pruned, nats", "rise"], rows)
    )


_SECTIONS = {"perplexity": _perplexity, "speed": _speed, "tokens": _tokens, "texts": _texts}


def _blocks(plan: Any) -> str:
    rows = []
    for index, block in enumerate(plan.blocks):
        gone = "; ".join(f"{head} ({why})" for head, why in block.attention.reasons().items())
        rows.append(
            [
                str(index),
                f"{len(block.attention.kept)} of {block.attention.units}",
                gone or "none",
                f"{len(block.ffn.kept)} of {block.ffn.units}",
            ]
        )
    table = _table(["block", "heads kept", "heads removed, and why", "channels kept"], rows)
    return f'<h2>Block by block</h2><div class="reasons">{table}</div>'


def _origin(run: Any) -> str:
    words = ", ".join(f"{name} {number}" for name, number in run.report.versions.items())
    return (
        "<h2>How to make it again</h2>"
        "<p>Save these lines as <code>recipe.yaml</code> and run <code>python -m pruning prune "
        f"{escape(run.recipe.model.source)} --recipe recipe.yaml --out pruned</code>.</p>"
        f'<pre>{escape(run.recipe.to_yaml())}</pre><p class="note">{escape(words)}</p>'
    )
