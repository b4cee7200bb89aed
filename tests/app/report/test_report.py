"""What is taken along: reports and tables."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.dom.minidom

from app.components import csv_export
from app.jobs import compare_tasks
from app.report import html as report_html
from app.report import report
from tests.helpers.found import Score, Text, add_run, found_things
from tests.helpers.stand_ins import FakeReport


def test_the_report_holds_what_was_compared(engine):
    found = {
        "perplexity": (compare_tasks.Pair(Score(50.0), Score(60.0)), ("run",)),
        "texts": (compare_tasks.Pair(Text("one"), Text("# two")), ("run", "Say")),
    }
    made = FakeReport(engine.plan)
    data = json.loads(report.as_json(made, found))
    assert data["evaluation"]["perplexity"]["after"]["perplexity"] == 60.0
    assert data["evaluation"]["texts"]["prompt"] == "Say"
    text = report.as_markdown("demo", made, found)
    assert "1.2000" in text and "\n    # two" in text and "## What was removed" in text


def test_the_html_report_is_whole_and_asks_for_nothing(engine):
    job = add_run(0.4)
    html = report_html.as_html("demo <1>", job.result, found_things())
    assert "<script" not in html and "demo &lt;1&gt;" in html
    assert not re.search(r"(src|href)=|url\(|@import", html)
    assert "default-src 'none'" in html and "@media print" in html
    assert html.count("<svg") == 3 and "60.000" in html and "like head" in html
    for drawing in re.findall(r"<svg.*?</svg>", html, flags=re.S):
        xml.dom.minidom.parseString(drawing)
    assert "threshold: 0.1" in html


def test_markdown_and_json_take_the_tokens(engine):
    made = FakeReport(engine.plan)
    assert "## Tokens whose likelihood fell most" in report.as_markdown("m", made, found_things())
    assert "tokens" not in json.loads(report.as_json(made, found_things()))["evaluation"]


def test_chart_data_reads_back_and_is_no_formula(engine):
    rows = list(csv.DictReader(io.StringIO(csv_export.as_csv(csv_export.head_rows(engine.plan)))))
    assert len(rows) == 270 and sum(row["kept"] == "False" for row in rows) > 0
    assert len(csv_export.width_rows(engine.plan)) == 30
    assert csv_export.as_csv([{"text": "=1+1"}]) == "text\n'=1+1\n"
    assert csv_export.as_csv([]) == ""
