"""The first minutes: a picture at once, every page by its address, on any screen."""

from __future__ import annotations

import pytest

from tests.helpers.steps import expect, go, poll

PAGES = {
    "model": "Model",
    "heads": "Heads",
    "what_if": "What if",
    "activations": "Activations",
    "prune": "Prune",
    "compare": "Compare",
    "difference": "Difference",
    "sweeps": "Sweeps",
    "experiments": "Experiments",
}


def test_the_first_visit_draws_a_picture(visit):
    tab = visit()
    page = tab.open()
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.url.startswith(f"{tab.address}/heads")
    page.wait_for_selector(".st-key-heads-map .main-svg")
    page.wait_for_selector(".st-key-heads-overview .main-svg")
    page.wait_for_selector(".st-key-heads-sheet .main-svg")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_opens_by_its_address(visit, path):
    tab = visit()
    page = tab.open(path)
    expect(page.get_by_role("heading", name=PAGES[path], exact=True, level=1)).to_be_visible()
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_nothing_is_wider_than_a_laptop_or_a_phone(visit):
    tab = visit()
    page = tab.open("model")
    main = "document.querySelector('[data-testid=stMain]')"
    fits = f"{main}.scrollWidth <= {main}.clientWidth"
    for name in PAGES.values():
        go(page, name)
        for width, height in ((390, 844), (1280, 720)):
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_function(fits)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes(visit, scheme, tmp_path):
    tab = visit(color_scheme=scheme)
    page = tab.open("prune")
    page.wait_for_selector(".js-plotly-plot .main-svg")

    def dark() -> bool:
        colour = page.evaluate(
            "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
        )
        return sum(int(part) for part in colour.strip("rgba()").split(",")[:3]) / 3 < 80

    poll(page, lambda: dark() == (scheme == "dark"))
    picture = page.screenshot(path=str(tmp_path / f"{scheme}.png"))
    assert len(picture) > 20_000
