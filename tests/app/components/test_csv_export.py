"""Rows as CSV files."""

from __future__ import annotations

import csv
import io

from app.charts.plan_map import head_rows, width_rows
from app.components.csv_export import as_csv


def test_chart_data_reads_back(engine):
    rows = list(csv.DictReader(io.StringIO(as_csv(head_rows(engine.plan)))))
    assert len(rows) == 270 and sum(row["kept"] == "False" for row in rows) > 0
    assert len(width_rows(engine.plan)) == 30
    assert as_csv([]) == ""


def test_text_is_no_formula():
    assert as_csv([{"text": "=1+1"}]) == "text\n'=1+1\n"
