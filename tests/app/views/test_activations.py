"""The Activations page on the demo measurement."""

from __future__ import annotations

import json

import pytest

from app.charts.activations import channel_rows, magnitude_rows
from app.session import state
from tests.helpers.stand_ins import labelled, words


@pytest.fixture
def activations(visit):
    return visit("activations")


def figures(at) -> list[dict]:
    return [json.loads(element.proto.spec) for element in at.get("plotly_chart")]


def test_first_look(activations):
    assert not activations.exception
    assert len(figures(activations)) == 5
    assert all(element.proto.alt for element in activations.get("plotly_chart"))
    assert "more than 20 times" in words(activations)
    table = activations.dataframe[0].value
    assert 507 in set(table["Channel"])


def test_another_block_changes_its_details_only(activations):
    before = figures(activations)
    labelled(activations.slider, "Block").set_value(12).run()
    after = figures(activations)
    assert not activations.exception
    assert before[0]["data"] == after[0]["data"]
    assert before[1]["data"] != after[1]["data"]
    assert "Block 12" in words(activations)
    assert "Outliers: 507" in words(activations)


def test_the_block_is_shared_with_heads(activations):
    labelled(activations.slider, "Block").set_value(9).run()
    at = activations.switch_page("views/heads/page.py").run()
    assert labelled(at.slider, "Block").value == 9
    assert "Block 9:" in words(at)


def test_the_numbers_behind_the_charts_can_be_taken_along(activations):
    assert {b.label for b in activations.get("download_button")} >= {
        "magnitudes.csv",
        "channels.csv",
    }
    measured = state.demo_measurement()
    rows = magnitude_rows(measured)
    assert len(rows) == 3 * len(measured.blocks)
    summary = measured.blocks[5].activations["ffn"]
    (row,) = [row for row in rows if (row["block"], row["place"]) == (5, "ffn")]
    assert (
        row["maximum"] == summary.maximum
        and row["quantile_0.5"] == (summary.quantiles[summary.levels.index(0.5)])
    )
    kept = [row for row in channel_rows(measured) if (row["block"], row["place"]) == (5, "ffn")]
    assert [row["channel"] for row in kept] == list(summary.top_channels)
