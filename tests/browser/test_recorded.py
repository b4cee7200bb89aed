"""The very first visitor watches a whole run and its answer, and the server never loads torch."""

from __future__ import annotations

import re
import time

import pytest

from benchmarks.pages import has_torch
from benchmarks.server import server as fresh_server
from tests.browser.conftest import visitor
from tests.helpers.steps import at_rest, decision, expect, go, poll, press


@pytest.fixture(scope="module")
def quiet():
    """A server of its own that has loaded no model."""
    with fresh_server() as (address, process_id, _):
        yield address, process_id


def test_from_the_first_visit_to_compare_without_torch(browser, quiet):
    address, process_id = quiet
    with visitor(browser, address, viewport={"width": 1280, "height": 720}) as tab:
        started = time.monotonic()
        page = tab.open("prune")
        page.get_by_role("button", name="Play the recording").click()
        expect(page.get_by_text("Recorded on").first).to_be_visible()
        expect(decision(page)).to_be_visible()
        press(page, "Decision", "End")
        sentence = re.compile(r"\d+% of the block parameters gone, perplexity \d+ → \d+")
        expect(page.get_by_role("status").filter(has_text=sentence)).to_be_visible()
        at_rest(page)
        go(page, "Compare")
        expect(page.get_by_text(sentence)).to_be_visible()
        expect(page.get_by_text("nothing was computed for you")).to_be_visible()
        expect(page.get_by_text("Pruned ÷ dense")).to_be_visible()
        print(f"first visit to Compare in {time.monotonic() - started:.1f} s")
        with page.expect_download() as report:
            page.get_by_role("button", name="Report, HTML").click()
        assert "perplexity" in report.value.path().read_text(encoding="utf-8").lower()
        assert not has_torch(process_id)


def test_charts_follow_a_theme_that_is_switched_in_mid_visit(browser, quiet):
    """What is hollow is filled with the page's colour."""
    size = {"width": 1280, "height": 720}
    with visitor(browser, quiet[0], color_scheme="light", viewport=size) as tab:
        page = tab.open("prune")
        page.get_by_role("button", name="Play the recording").click()
        expect(decision(page)).to_be_visible()
        press(page, "Decision", "End")

        def fills(colour: str) -> bool:
            return page.evaluate(
                """colour => [...document.querySelectorAll('.js-plotly-plot')].some(
                  chart => JSON.stringify(chart._fullData?.map(t => t.marker?.color) ?? [])
                    .includes(colour))""",
                colour,
            )

        poll(page, lambda: fills("#fcfcfb"))
        page.emulate_media(color_scheme="dark")
        poll(page, lambda: fills("#12181c"))
