"""The whole state comes back from a recipe file and from an address."""

from __future__ import annotations

from tests.helpers.steps import go, open_recipe, press, query, small_recipe, value_of, write_recipe

TAU = "τ, nats (natural log)"


def shows(page, ffn: str, tau: str) -> None:
    """Wait until Prune and Heads show these settings."""
    go(page, "Prune")
    page.wait_for_function(
        "ffn => document.querySelector('input[aria-label^=FFN]')?.ariaValueText === ffn", arg=ffn
    )
    go(page, "Heads")
    page.get_by_role("slider", name=TAU).wait_for()
    assert value_of(page, TAU) == tau


def test_a_file_restores_the_state(visit, tmp_path):
    wanted = small_recipe(ffn={"ratio": 0.45}, heads={"threshold": 0.12}, marks={1: {"drop": [2]}})
    page = visit().open("prune")
    open_recipe(page, write_recipe(tmp_path, wanted))
    shows(page, "45%", "0.120")
    page.get_by_text("Marked by hand: block 1 drops 2.").wait_for()


def test_a_damaged_file_changes_nothing_and_is_one_sentence(visit, tmp_path):
    page = visit().open("prune")
    before = value_of(page, "FFN channels to remove")
    (tmp_path / "broken.yaml").write_text("ffn: {ratio: much}")
    page.get_by_text("Recipe file", exact=True).click()
    page.set_input_files("input[type=file]", str(tmp_path / "broken.yaml"))
    page.get_by_test_id("stAlert").get_by_text("broken.yaml").wait_for()
    assert value_of(page, "FFN channels to remove") == before


def test_the_address_restores_the_state_for_somebody_else(visit):
    first = visit()
    page = first.open("prune")
    press(page, "FFN channels to remove", "PageUp", times=2)
    page.wait_for_function("() => new URL(location).searchParams.has('recipe')")
    first.settled()
    ffn, link = value_of(page, "FFN channels to remove"), query(page)["recipe"]
    assert ffn != "20%"
    other = visit().open(f"prune?recipe={link}")
    shows(other, ffn, "0.100")
