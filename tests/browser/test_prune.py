"""Pruning the embedded model and watching it: feed, pause, replay, cancel, reload."""

from __future__ import annotations

import re

import pytest

from tests.helpers.steps import (
    asks_for,
    decision,
    expect,
    long_recipe,
    open_recipe,
    poll,
    press,
    query_now,
    run_to_end,
    says,
    slider,
    small_recipe,
    unchanged,
    value_now,
    write_recipe,
)


def start(page, folder, recipe) -> None:
    open_recipe(page, write_recipe(folder, recipe))
    page.get_by_role("button", name="Run").click()


def pause(page) -> None:
    """Pause the run after its first decision, and wait until it rests."""
    expect(decision(page)).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    expect(page.get_by_text("· paused")).to_be_visible()


def another(page, sentence: str) -> None:
    """Wait for a decision other than ``sentence``."""
    page.wait_for_function(
        """was => [...document.querySelectorAll('[role=status]')].some(
          line => /Block \\d+ \\w+: /.test(line.innerText) && line.innerText.trim() !== was)""",
        arg=sentence.strip(),
    )


def test_the_feed_plays_pauses_outlives_a_reload_and_is_replayed(visit, tmp_path):
    page = visit().open("prune")
    start(page, tmp_path, small_recipe(heads={"ratio": 0.34}, blocks={"start": 0, "end": None}))
    pause(page)
    job = query_now(page)["job"]
    unchanged(page, decision(page))
    page.reload()  # in the middle of the run, which cannot end meanwhile
    expect(decision(page)).to_be_visible()
    asks_for(page, "job", job)
    page.get_by_role("button", name="Resume").click()
    run_to_end(page)  # a slow browser may have paused it at its last decision
    asks_for(page, "job", job)

    tape = slider(page, "Decision")
    expect(tape).to_have_attribute("aria-valuetext", re.compile(r"^\d\d+$"))  # at its end
    last = int(value_now(page, "Decision"))
    assert last >= 30
    says(page, "Decision", str(last))
    press(page, "Decision", "Home")
    expect(page.get_by_role("status").filter(has_text="Before the first cut")).to_be_visible()
    press(page, "Decision", "ArrowRight")
    first = decision(page).filter(has_text="Block 0 ")
    expect(first).to_be_visible()
    told = first.inner_text()
    page.get_by_role("button", name="Play").click()
    another(page, told)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    poll(page, lambda: 1 < int(value_now(page, "Decision")) <= last)


@pytest.mark.parametrize("moment", ["while it loads and measures", "while it cuts"])
def test_cancel(visit, tmp_path, moment):
    page = visit().open("prune")
    start(page, tmp_path, long_recipe())
    if moment == "while it cuts":
        expect(decision(page)).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_test_id("stAlert").get_by_text("Cancelled")).to_be_visible()
    expect(page.get_by_role("button", name="Run")).to_be_enabled()
