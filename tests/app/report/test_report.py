"""The report as HTML, Markdown and JSON."""

from __future__ import annotations

import json
import re
import xml.dom.minidom
from dataclasses import replace

import pytest

from app.jobs import compare_tasks
from app.report import report, tables
from tests.helpers.finished_jobs import EVIL, LOSSES, Passage, Score, Text, add_run, found_things
from tests.helpers.stand_ins import FakeReport, FakeRun


@pytest.fixture
def run(engine) -> FakeRun:
    return add_run(0.4).result


def test_the_report_holds_what_was_compared(engine):
    found = {
        "perplexity": (compare_tasks.Pair(Score(50.0), Score(60.0)), ("run",)),
        "texts": (compare_tasks.Pair(Text("one"), Text("# two")), ("run", "Say")),
    }
    run = FakeRun(engine.plan, FakeReport(engine.plan))
    data = json.loads(report.as_json("demo", run, found))
    assert data["evaluation"]["perplexity"]["after"]["perplexity"] == 60.0
    assert data["evaluation"]["texts"]["prompt"] == "Say"
    text = report.as_markdown("demo", run, found)
    assert "1.2000" in text and "\n    # two" in text and "## What was removed" in text


def test_the_html_report_is_whole_and_asks_for_nothing(run):
    html = report.as_html("demo <1>", run, found_things())
    assert html.startswith("<!doctype html>") and html.rstrip().endswith("</html>")
    assert "<script" not in html and "demo &lt;1&gt;" in html
    assert run.report.recovery_check is None and "Only FFN channels go." in html
    assert not re.search(r"(src|href)=|url\(|@import", html)
    assert "default-src 'none'" in html and "@media print" in html
    assert html.count("<svg") == 3 and "60.000" in html and "like head" in html
    for drawing in re.findall(r"<svg.*?</svg>", html, flags=re.S):
        xml.dom.minidom.parseString(drawing)
    assert "threshold: 0.1" in html


def test_a_run_without_comparisons_has_a_report_too(engine):
    run = FakeRun(engine.plan, FakeReport(engine.plan), recipe=engine.recipe)
    html = report.as_html("demo", run, {})
    assert html.count("<svg") == 2 and "Perplexity" not in html and "Reconstruction" not in html
    text = report.as_markdown("demo", run, {})
    assert text.startswith("# demo, pruned\n\n## What was removed")


def test_nothing_that_a_model_or_a_visitor_wrote_is_markup_in_html(run):
    recipe = run.recipe.changed(model={"source": f"a/{EVIL}"})
    found = {
        "tokens": (replace(LOSSES, passages=(Passage((EVIL, "&", '"')),), corpus=EVIL), ()),
        "texts": (compare_tasks.Pair(Text(EVIL), Text(EVIL)), ("run", EVIL)),
        "perplexity": (compare_tasks.Pair(Score(1.0), Score(2.0, EVIL)), ()),
    }
    html = report.as_html(EVIL, replace(run, recipe=recipe), found)
    assert "<script" not in html and html.count("&lt;script&gt;") >= 10


def test_nothing_that_a_model_or_a_visitor_wrote_is_markup_in_markdown(run):
    pieces = ("The", "a|b`c\nd", EVIL)
    found = {
        "tokens": (replace(LOSSES, passages=(Passage(pieces),), corpus="*corpus*"), ()),
        "texts": (compare_tasks.Pair(Text("# title"), Text(f"one\n{EVIL}")), ("run", "| x")),
    }
    text = report.as_markdown(EVIL, run, found)
    for line in text.splitlines():
        inside = line.startswith("    ") or re.fullmatch(r"\| `[^`|]*` \|.*", line)
        assert inside or not re.search(r"(?<!\\)<|^# title|^\| x", line), line
    assert "`a¦b'c⏎d`" in text and r"\*corpus\*" in text and "    # title" in text


def test_the_same_numbers_stand_in_html_and_markdown(run):
    compared = tables.comparisons(found_things())
    assert [table.title for table in compared] == [
        "Perplexity",
        "Tokens per second",
        "Tokens with the largest loss increase",
    ]
    html = report.as_html("m", run, found_things())
    text = report.as_markdown("m", run, found_things())
    for cell in (cell for table in compared for row in table.rows for cell in row[1:]):
        assert f"<td>{cell}</td>" in html and f"| {cell} |" in text


def test_losses_of_single_tokens_are_not_in_the_json(run):
    assert "tokens" not in json.loads(report.as_json("m", run, found_things()))["evaluation"]
