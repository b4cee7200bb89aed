"""The main job in a real browser: look, prune, cancel, compare."""

from __future__ import annotations

import pytest

from app.state import initial_recipe

PAGES = {
    "model": "Model",
    "heads": "Heads",
    "activations": "Activations",
    "prune": "Prune",
    "compare": "Compare",
}
MINUTES = 60_000


def recipe_file(folder, samples: int, blocks: dict) -> str:
    """A recipe that a test uploads: few tokens, few blocks."""
    recipe = initial_recipe().changed(
        calibration={"samples": samples, "seq_len": 32}, blocks=blocks, ffn={"ratio": 0.25}
    )
    path = folder / "small.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    return str(path)


def upload(page, file: str) -> None:
    page.get_by_text("Recipe file", exact=True).click()
    page.set_input_files("input[type=file]", file)
    page.get_by_text("small.yaml").wait_for()


def test_the_first_visit_draws_a_picture(visit):
    tab = visit()
    page = tab.open()
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.url.startswith(f"{tab.address}/heads")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_opens_by_its_address(visit, path):
    tab = visit()
    page = tab.open(path)
    page.get_by_role("heading", name=PAGES[path], exact=True).first.wait_for()
    tab.settled()
    assert not page.locator("[data-testid=stException]").count()


def test_nothing_is_wider_than_a_laptop(visit):
    tab = visit()
    for path in PAGES:
        page = tab.open(path)
        tab.settled()
        main = "document.querySelector('[data-testid=stMain]')"
        assert page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth"), path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes(visit, scheme, tmp_path):
    tab = visit(color_scheme=scheme)
    page = tab.open("prune")
    tab.settled()
    page.wait_for_selector(".js-plotly-plot .main-svg")
    colour = page.evaluate(
        "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
    )
    brightness = sum(int(part) for part in colour.strip("rgba()").split(",")[:3]) / 3
    assert (brightness < 80) == (scheme == "dark")
    picture = page.screenshot(path=str(tmp_path / f"{scheme}.png"))
    assert len(picture) > 20_000


def test_prune_and_compare(visit, tmp_path):
    tab = visit()
    page = tab.open("prune")
    upload(page, recipe_file(tmp_path, samples=2, blocks={"start": 3, "end": 5}))
    page.get_by_role("button", name="Run").click()
    page.get_by_text("of the block parameters are kept").wait_for(timeout=4 * MINUTES)
    page.get_by_role("link", name="Open Compare").click()
    page.get_by_label("Windows", exact=True).fill("2")
    page.get_by_label("Windows", exact=True).press("Enter")
    page.get_by_role("button", name="Evaluate").click()
    page.get_by_text("tokenised once").first.wait_for(timeout=2 * MINUTES)
    assert page.get_by_text("Pruned ÷ dense").is_visible()
    page.reload()
    page.get_by_text("tokenised once").first.wait_for(timeout=MINUTES)


def test_cancel(visit, tmp_path):
    tab = visit()
    page = tab.open("prune")
    upload(page, recipe_file(tmp_path, samples=64, blocks={"start": 0, "end": None}))
    page.get_by_role("button", name="Run").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_test_id("stAlert").get_by_text("Cancelled").wait_for(timeout=2 * MINUTES)
    assert page.get_by_role("button", name="Run").is_enabled()
