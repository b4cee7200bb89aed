"""A presenter with a keyboard, and a follower in a browser of their own."""

from __future__ import annotations

import os
import re

from tests.browser.conftest import visitor
from tests.helpers.steps import expect, open_recipe, poll, small_recipe, write_recipe

SIZE = {"width": 1280, "height": 720}
_NOTE = """() => {
  window.told = {};
  const look = () => {
    const line = document.querySelector("[role=status]")?.innerText.trim();
    if (line) window.told[line] ??= Date.now();
    requestAnimationFrame(look);
  };
  look();
}"""
"""Notes when each sentence is first on the screen."""


def follow_link(page, keys):
    keys.get_by_role("button", name="Follow link").click()
    page.get_by_role("button", name="Make the link").click()
    link = page.get_by_test_id("stCode").inner_text().strip()
    page.keyboard.press("Escape")
    return link


def test_a_follower_is_in_step_and_cannot_press_anything(visit, browser, server):
    page = visit().open("prune")
    page.get_by_role("button", name="Play the recording").click()
    page.get_by_role("button", name="Present").click()
    told, keys = page.get_by_role("status").first, page.locator(".st-key-present-keys")
    expect(keys.get_by_role("button", name="Leave")).to_be_visible()
    link = follow_link(page, keys)
    with visitor(browser, server, viewport=SIZE) as other:
        audience = other.page
        audience.goto(link)
        theirs = audience.get_by_role("status").first
        expect(theirs).to_be_visible()
        page.keyboard.press("Space")
        expect(keys.get_by_role("button", name="Play")).to_be_visible()
        for tab in (page, audience):
            tab.evaluate(_NOTE)
        page.keyboard.press("1")
        page.keyboard.press("2")
        expect(told).to_contain_text("Block 12 FFN: ")
        for key in ("ArrowLeft", "ArrowRight", "ArrowRight"):
            before = told.inner_text()
            page.keyboard.press(key)
            expect(told).not_to_have_text(before)
            expect(theirs).to_have_text(told.inner_text())
        shown, followed = (tab.evaluate("window.told") for tab in (page, audience))
        late = [followed[line] - shown[line] for line in shown if line in followed]
        # each of them, where nothing else is at work
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert len(late) >= 3 and max(late) <= 2000 * busy, late
        assert audience.get_by_role("button").count() == 0
        assert audience.get_by_role("link").all_inner_texts() == ["Skip to main content"]
        assert "job=" not in audience.url and "recipe=" not in audience.url
        keys.get_by_role("button", name="Follow link").click()
        page.get_by_role("button", name="End the link").click()
        expect(audience.get_by_text("Nothing to follow here")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Prune", level=1)).to_be_visible()
    assert re.search(r"/prune", page.url)


def test_a_run_at_work_is_presented_and_followed(visit, browser, server, tiny, tmp_path):
    page = visit().open("prune")
    text = {"samples": 1000, "seq_len": 32}
    recipe = small_recipe(model=tiny, calibration=text, blocks={"start": 0, "end": None})
    open_recipe(page, write_recipe(tmp_path, recipe))
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("button", name="Present").click()
    told, keys = page.get_by_role("status").first, page.locator(".st-key-present-keys")
    link = follow_link(page, keys)
    with visitor(browser, server, viewport=SIZE) as other:
        audience = other.page
        audience.goto(link)
        theirs = audience.get_by_role("status").first
        expect(told).to_contain_text(re.compile(r"Block \d+ "))
        page.keyboard.press("Space")
        resume = keys.get_by_role("button", name="Resume")
        expect(resume).to_be_visible()
        poll(page, lambda: told.inner_text() == theirs.inner_text())
        foot = keys.bounding_box()
        assert foot["y"] + foot["height"] <= SIZE["height"]  # in the window, whatever is told
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Cancel").click()
        expect(audience.get_by_text("Nothing to follow here")).to_be_visible()
