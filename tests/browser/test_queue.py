"""Two visitors at once, one queue."""

from __future__ import annotations

import re

from tests.helpers.steps import (
    decision,
    expect,
    long_recipe,
    open_recipe,
    press,
    run_to_end,
    small_recipe,
    write_recipe,
)


def test_the_second_visitor_waits_and_then_runs(visit, tmp_path, tiny):
    first, second = visit(), visit()
    one, two = first.open("prune"), second.open("prune")
    open_recipe(one, write_recipe(tmp_path, long_recipe(), "long.yaml"))
    open_recipe(two, write_recipe(tmp_path, small_recipe(model=tiny)))
    one.get_by_role("button", name="Run").click()
    expect(one.get_by_role("button", name="Cancel")).to_be_visible()
    two.get_by_role("button", name="Run").click()
    expect(two.get_by_role("status").filter(has_text="1 job ahead")).to_be_visible()
    expect(two.get_by_role("button", name="Pause")).to_be_disabled()
    one.get_by_role("button", name="Cancel").click()
    expect(one.get_by_test_id("stAlert").get_by_text("Cancelled")).to_be_visible()
    run_to_end(two)
    expect(two.get_by_role("status").filter(has_text="block parameters gone")).to_be_visible()
    press(two, "Decision", "ArrowLeft")  # its own decisions: those before the last
    expect(decision(two)).to_have_text(re.compile(r"^\s*Block (3 FFN|4 attention)"))
    expect(one.get_by_text("of the block parameters are kept")).to_have_count(0)
