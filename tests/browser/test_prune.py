"""Pruning the embedded model and watching it: feed, pause, replay, cancel, reload."""

from __future__ import annotations

import pytest

from tests.helpers.steps import (
    decision,
    long_recipe,
    open_recipe,
    press,
    query,
    slider,
    small_recipe,
    value_of,
    write_recipe,
)


def start(page, folder, recipe) -> None:
    open_recipe(page, write_recipe(folder, recipe))
    page.get_by_role("button", name="Run").click()


def another(page, sentence: str) -> None:
    """Wait for a decision other than ``sentence``."""
    page.wait_for_function(
        """was => [...document.querySelectorAll('[role=status]')].some(
          line => /Block \\d+ \\w+: /.test(line.innerText) && line.innerText.trim() !== was)""",
        arg=sentence.strip(),
    )


def test_the_feed_plays_pauses_and_is_replayed(visit, tmp_path):
    page = visit().open("prune")
    start(page, tmp_path, small_recipe(heads={"ratio": 0.34}, blocks={"start": 0, "end": None}))
    decision(page).wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    page.get_by_text("· paused").wait_for()
    held = decision(page).inner_text()
    page.wait_for_timeout(2500)  # two redraws
    assert decision(page).inner_text() == held
    page.get_by_role("button", name="Resume").click()
    another(page, held)
    page.get_by_text("of the block parameters are kept").wait_for()

    last = int(value_of(page, "Decision"))
    assert last >= 30
    press(page, "Decision", "Home")
    page.get_by_role("status").filter(has_text="Before the first cut").wait_for()
    press(page, "Decision", "ArrowRight")
    decision(page).filter(has_text="Block 0 ").wait_for()
    page.get_by_role("button", name="Play").click()
    another(page, decision(page).inner_text())
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Play").wait_for()
    assert 1 < int(slider(page, "Decision").get_attribute("aria-valuetext")) <= last


@pytest.mark.parametrize("moment", ["while it loads and measures", "while it cuts"])
def test_cancel(visit, tmp_path, moment):
    page = visit().open("prune")
    start(page, tmp_path, long_recipe())
    if moment == "while it cuts":
        decision(page).wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_test_id("stAlert").get_by_text("Cancelled").wait_for()
    assert page.get_by_role("button", name="Run").is_enabled()


def test_a_reload_in_the_middle_finds_the_job_at_work(visit, tmp_path):
    first = visit()
    page = first.open("prune")
    start(page, tmp_path, small_recipe(heads={"ratio": 0.34}, blocks={"start": 0, "end": None}))
    decision(page).wait_for()
    job = query(page)["job"]
    page.get_by_role("button", name="Pause").click()  # so that it is not over before the reload
    page.get_by_text("· paused").wait_for()
    before = decision(page).inner_text()
    page.reload()
    decision(page).wait_for()
    assert query(page)["job"] == job
    resume = page.get_by_role("button", name="Resume")
    resume.click()
    another(page, before)
    page.get_by_text("of the block parameters are kept").wait_for()
    assert query(page)["job"] == job
