"""Writes the report of a run: HTML for readers, Markdown for repositories, JSON for programs.

``run`` is a PruneRun, best without its models: pages keep what a download will be made of.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from app.charts.plan_map import block_widths, head_map
from app.charts.recovery import error_chart
from app.charts.tuning import tuning_chart
from app.components import token_marks
from app.report import tables
from app.report.svg import svg
from app.report.tables import Results
from pruning.utils.templates import rendered

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|])")


def as_html(model: str, run: Any, results: Results) -> str:
    """One file that asks for nothing from anywhere: charts are inline SVG."""
    charts = [block_widths(run.plan), head_map(run.plan)]
    if run.events:
        charts.append(error_chart(run.events, range(len(run.plan.blocks))))
    if run.report.tuning and run.report.tuning.curve:
        charts.append(tuning_chart(run.report.tuning.curve))
    passages = results["tokens"][0].passages if "tokens" in results else []
    worst = max(passages, key=lambda passage: passage.mean_rise, default=None)
    marks = worst and token_marks.passage_html(worst.pieces, worst.dense, worst.pruned)
    drawings = [Markup(svg(chart)) for chart in charts]
    return _filled(
        "report.html", model, run, results, drawings=drawings, passage=worst, marks=marks
    )


def as_markdown(model: str, run: Any, results: Results) -> str:
    """The same for people who read it as text."""
    return _filled("report.md", model, run, results)


def as_json(model: str, run: Any, results: Results) -> str:
    """The engine's report with an ``evaluation`` entry per kind of comparison; the losses of
    single tokens are a CSV file of their own."""
    data = json.loads(run.report.to_json())
    data["evaluation"] = {
        kind: {"before": asdict(pair.before), "after": asdict(pair.after)}
        for kind, (pair, _) in results.items()
        if kind not in ("tokens", "written")
    }
    if "written" in results:
        data["evaluation"]["written"] = results["written"][0].as_dict()
    if "texts" in results:
        data["evaluation"]["texts"]["prompt"] = results["texts"][1][1]
    return json.dumps(data, indent=1)


def _filled(template: str, model: str, run: Any, results: Results, **more: Any) -> str:
    pair, asked = results.get("texts", (None, None))
    return rendered(
        Path(__file__).parent / "templates" / template,
        {"plain": _plain, "code": _code, "quoted": _quoted},
        model=model,
        run=run,
        tables=tables,
        comparisons=tables.comparisons(results),
        prompt=asked and asked[1],
        texts={"Dense": pair.before.text, "Pruned": pair.after.text} if pair else {},
        legend=token_marks.legend_html(),
        **more,
    )


def _plain(text: str) -> str:
    """Text in Markdown that is not read as markup."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Code in a table: neither pipes nor back quotes nor line ends may leave it."""
    return "`" + text.translate(str.maketrans("|`\n", "¦'⏎")) + "`"


def _quoted(text: str) -> str:
    """An indented block: what a model writes must not be read as markup."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
