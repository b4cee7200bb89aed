"""The whole state comes back from a recipe file and from an address."""

from __future__ import annotations

from app.session import recipe_link
from tests.helpers.steps import (
    expect,
    go,
    open_recipe,
    poll,
    press,
    query_now,
    says,
    small_recipe,
    upload,
    value_now,
    write_recipe,
)

TAU = "τ, nats (natural log)"
FFN = "FFN channels to remove"
KEPT = "Parameters to keep"
"""What the first draft's form has in place of ratios."""


def shows(page, size: str, tau: str, label: str = FFN) -> None:
    """Wait until Prune and Heads show these settings."""
    go(page, "Prune")
    says(page, label, size)
    go(page, "Heads")
    says(page, TAU, tau)


def test_a_file_restores_the_state(visit, tmp_path):
    wanted = small_recipe(ffn={"ratio": 0.45}, heads={"threshold": 0.12}, marks={1: {"drop": [2]}})
    page = visit().open("prune")
    open_recipe(page, write_recipe(tmp_path, wanted))
    shows(page, "45%", "0.120")
    expect(page.get_by_text("Marked by hand: block 1 drops 2")).to_be_visible()


def test_a_damaged_file_changes_nothing_and_is_one_sentence(visit, tmp_path):
    page = visit().open("prune")
    before = value_now(page, KEPT)
    (tmp_path / "broken.yaml").write_text("ffn: {ratio: much}")
    upload(page, str(tmp_path / "broken.yaml"))
    expect(page.get_by_test_id("stAlert").get_by_text("broken.yaml")).to_be_visible()
    says(page, KEPT, before)


def test_the_address_restores_the_state_for_somebody_else(visit):
    first = visit()
    page = first.open("prune")
    press(page, KEPT, "PageDown", times=2)
    kept = value_now(page, KEPT)
    assert kept != "85%"

    def link() -> str | None:
        """The address' recipe, once it has what the slider says."""
        text = query_now(page).get("recipe")
        return text if text and f"{recipe_link.decode(text).budget.kept:.0%}" == kept else None

    other = visit().open(f"prune?recipe={poll(page, link)}")
    shows(other, kept, "0.100", KEPT)
