"""A sweep in a browser: points appear as they are found; cancelling keeps them."""

from __future__ import annotations

import time

from app.session import recipe_link
from tests.helpers.chart_steps import until
from tests.helpers.steps import asks_for, at_rest, expect, small_recipe


def opened(visit, values: str, **sections):
    # finished points are kept on disk: a seed of its own makes every sweep a new one
    recipe = small_recipe(seed=time.time_ns() % 2**31, **sections)
    address = {
        "recipe": recipe_link.encode(recipe),
        "sweep.values.ratio": values,
        "sweep.windows": "1",
        "sweep.seq_len": "32",
        "sweep.presets": "flap",
    }
    page = visit().open("sweeps?" + "&".join(f"{name}={what}" for name, what in address.items()))
    # the field is there, and empty, before the address has been read
    expect(page.get_by_label("Values", exact=True)).to_have_value(values)
    at_rest(page)
    return page


CHART = "[class*=st-key-sweep-chart]"
TWO_LINES = "drawn._fullData.filter(t => t.y?.some(value => value > 0)).length >= 2"
"""That of the dense model, and the first point of a method."""
COMPLETE = """drawn._fullData.filter(t => t.name && t.x
  && [...t.x].sort().join() === arg.join()).map(t => t.name)"""
"""Names of the methods whose points are all there."""


def key_of(page) -> str:
    """The chart's key: it carries the job's id."""
    page.wait_for_selector(f"{CHART} .js-plotly-plot")
    names = page.locator(CHART).first.get_attribute("class").split()
    return next(n for n in names if n.startswith("st-key-sweep-chart")).removeprefix("st-key-")


def test_points_appear_and_the_sweep_ends(visit, tiny):
    page = opened(visit, "0.1,0.2", model=tiny)
    page.get_by_role("button", name="Start", exact=True).click()
    key = key_of(page)
    until(page, key, TWO_LINES)
    expect(page.get_by_role("button", name="sweep.csv")).to_be_visible()
    # both points are those of the method that the address names
    until(page, key, f"JSON.stringify({COMPLETE}) === JSON.stringify(['FLAP'])", [0.1, 0.2])
    asks_for(page, "sweep.presets", "flap")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled()


def test_cancel_keeps_what_is_found(visit):
    page = opened(visit, "0.005,0.01,0.015,0.02,0.025,0.03")
    page.get_by_role("button", name="Start", exact=True).click()
    key = key_of(page)
    until(page, key, TWO_LINES)
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_test_id("stAlert").get_by_text("Cancelled")).to_be_visible()
    expect(page.get_by_text("Perplexity: ")).to_be_visible()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
