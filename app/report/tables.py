"""The tables of a report as plain objects: the templates only lay them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.components.text import amount, count, size
from pruning.artifacts.plan import Plan
from pruning.artifacts.report import Report
from pruning.artifacts.zero_shot import percent

Results = Mapping[str, tuple[Any, tuple]]
"""By kind of comparison, its result and what was asked for."""
WORST = 15
"""Tokens with the largest loss increase that are listed."""


@dataclass(frozen=True)
class Table:
    """``code``: the first cells are pieces of a text, in which every character counts."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    code: bool = False


def sizes(report: Report) -> Table:
    rows = []
    for label, column, unit in (
        ("Parameters", "parameters", count),
        ("Parameters of the blocks", "block_parameters", count),
        ("Weights", "bytes", size),
        ("FLOPs per token", "flops_per_token", count),
    ):
        old, new = getattr(report.before, column), getattr(report.after, column)
        rows.append([label, unit(old), unit(new), f"{100 * (new - old) / old:+.1f}%"])
    return Table("Size", ["", "dense", "pruned", "change"], rows)


def comparisons(results: Results) -> list[Table]:
    """What was measured of both models."""
    makers = {
        "perplexity": _perplexity,
        "speed": _speed,
        "zero_shot": zero_shot,
        "written": continuations,
        "tokens": _tokens,
    }
    return [make(results[kind][0]) for kind, make in makers.items() if kind in results]


def _perplexity(pair: Any) -> Table:
    old, new = pair.before.perplexity, pair.after.perplexity
    rows = [["Perplexity", f"{old:.3f}", f"{new:.3f}", f"{new / old:.4f}"]]
    return Table("Perplexity", ["", "dense", "pruned", "ratio"], rows, pair.after.protocol())


def _speed(pair: Any) -> Table:
    old, new = pair.before, pair.after
    rows = [
        ["Prefill", f"{old.prefill:,.0f}", f"{new.prefill:,.0f}"],
        ["Decode", f"{old.decode:,.1f}", f"{new.decode:,.1f}"],
    ]
    return Table("Tokens per second", ["", "dense", "pruned"], rows)


def zero_shot(pair: Any) -> Table:
    """Accuracy of both models, each with one standard error."""
    rows = [
        [old.task, percent(old.accuracy, old.stderr), percent(new.accuracy, new.stderr), old.metric]
        for old, new in zip(pair.before.scores, pair.after.scores, strict=True)
    ]
    means = [percent(side.mean, side.mean_stderr) for side in (pair.before, pair.after)]
    head = ["task", "dense", "pruned", "metric"]
    data = ", ".join(f"{score.task}: {score.data}" for score in pair.after.scores)
    note = f"{pair.after.protocol()} Data: {data}."
    return Table("Zero-shot accuracy", head, [*rows, ["mean", *means, ""]], note)


def continuations(found: Any) -> Table:
    """Repetition of both models, and how often they choose the same token."""
    rows = [
        ["Repeated 4-grams", f"{found.dense_repeated:.1%}", f"{found.repeated:.1%}"],
        ["Agreement with the dense model, token by token", "100.0%", f"{found.agreement:.1%}"],
    ]
    return Table("Continuations", ["", "dense", "pruned"], rows, found.protocol())


def _tokens(losses: Any) -> Table:
    rows = []
    for window, place, increase in losses.worst(WORST):
        passage = losses.passages[window]
        nats = passage.dense[place - 1], passage.pruned[place - 1]
        piece = passage.pieces[place].strip() or "space"
        rows.append([piece, *(f"{value:.2f}" for value in nats), f"{increase:+.2f}"])
    windows = f"{amount(len(losses.passages), 'window')} of {losses.seq_len} tokens"
    return Table(
        "Tokens with the largest loss increase",
        ["token", "dense, nats", "pruned, nats", "increase"],
        rows,
        f"{losses.corpus} ({losses.split}), {windows}.",
        code=True,
    )


def blocks(plan: Plan) -> Table:
    rows = []
    for index, block in enumerate(plan.blocks):
        heads, ffn = block.attention, block.ffn
        removed = "; ".join(f"{head} ({why})" for head, why in heads.reasons().items()) or "none"
        kept = [f"{len(module.kept)} of {module.units}" for module in (heads, ffn)]
        rows.append([str(index), kept[0], removed, kept[1]])
    head = ["block", "heads kept", "heads removed, and why", "channels kept"]
    return Table("Block by block", head, rows)
