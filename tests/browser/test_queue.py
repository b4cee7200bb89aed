"""Two visitors at once, one queue."""

from __future__ import annotations

from tests.helpers.steps import decision, long_recipe, open_recipe, small_recipe, write_recipe


def test_the_second_visitor_waits_and_then_runs(visit, tmp_path):
    first, second = visit(), visit()
    one, two = first.open("prune"), second.open("prune")
    open_recipe(one, write_recipe(tmp_path, long_recipe(), "long.yaml"))
    open_recipe(two, write_recipe(tmp_path, small_recipe()))
    one.get_by_role("button", name="Run").click()
    one.get_by_role("button", name="Cancel").wait_for()
    two.get_by_role("button", name="Run").click()
    two.get_by_role("status").filter(has_text="waiting, 1 job ahead").wait_for()
    assert two.get_by_role("button", name="Pause").is_disabled()
    one.get_by_role("button", name="Cancel").click()
    one.get_by_test_id("stAlert").get_by_text("Cancelled").wait_for()
    two.get_by_text("of the block parameters are kept").wait_for()
    assert decision(two).inner_text().startswith("Block 4 FFN")
    assert one.get_by_text("of the block parameters are kept").count() == 0
