"""Heads marked by hand: they win, in shapes that run, or one sentence says why not."""

from __future__ import annotations

import numpy as np
import pytest

from pruning.artifacts.plan import BY_HAND, SIMILARITY, Plan, check
from pruning.planning.allocation import ALLOCATIONS
from pruning.planning.planner import make_plan
from pruning.planning.rescore import rescored
from pruning.surgery.apply import apply
from pruning.utils.errors import UsageError
from tests.helpers import families, synthetic

POLICIES = ("query", "kv_group", "ungroup", "auto")


def plan_of(measured, marks, **changes):
    return make_plan(measured, families.recipe(**changes).changed(marks=marks))


def heads_of(measured, marks, **changes):
    """The attention plan of block 0, whose marks are given."""
    plan = plan_of(measured, {0: marks}, **changes)
    check(plan)
    return plan.blocks[0].attention


def why(module):
    return dict(zip(module.removed, module.criteria, strict=True))


@pytest.mark.parametrize("threshold", [None, 0.1, 0.5])
@pytest.mark.parametrize("drop", ["first", "weaker"])
@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.9])
def test_marks_win_over_every_criterion(threshold, drop, ratio):
    for seed in range(5):
        measured = synthetic.measurement(seed, heads=12, groups=12)
        rule = {"heads__threshold": threshold, "heads__drop": drop, "heads__ratio": ratio}
        module = heads_of(measured, {"keep": [0, 3, 4], "drop": [7, 11]}, **rule)
        assert {7, 11} <= set(module.removed) and not {0, 3, 4} & set(module.removed)
        assert why(module)[7] == why(module)[11] == BY_HAND
        assert module.reason(7) == "marked by hand" and module.held == (0, 3, 4)
        partners = {
            p for p, c in zip(module.partners, module.criteria, strict=True) if c == SIMILARITY
        }
        assert not partners & {7, 11}, "a dropped head speaks for no one"
        if threshold is None:
            assert len(module.removed) == max(2, min(round(12 * ratio), 9))


def test_no_marks_change_nothing():
    measured = synthetic.measurement(1, heads=12, groups=4)
    for policy in POLICIES:
        rule = {"heads__threshold": 0.2, "heads__ratio": 0.4, "heads__policy": policy}
        assert plan_of(measured, {}, **rule) == make_plan(measured, families.recipe(**rule))


def test_all_heads_may_be_kept():
    measured = synthetic.measurement(heads=6, groups=6)
    module = heads_of(measured, {"keep": range(6)}, heads__ratio=0.5, heads__threshold=0.6)
    assert module.removed == ()


def test_each_group_gives_up_as_many_as_the_marks_ask_and_says_so():
    measured = synthetic.measurement(heads=12, groups=4)
    module = heads_of(measured, {"drop": [3, 5], "keep": [0]})
    assert [sum(u // 3 == g for u in module.removed) for g in range(4)] == [2, 2, 2, 2]
    assert {3, 5} <= set(module.removed) and 0 not in module.removed
    filled = [reason for unit, reason in module.reasons().items() if unit not in (3, 5)]
    assert all(
        r.endswith("in its group, to give up as many as group 1, marked by hand") for r in filled
    )


def test_a_group_marked_whole_goes_whole():
    measured = synthetic.measurement(heads=12, groups=4)
    module = heads_of(measured, {"drop": [3, 4, 5]}, heads__ratio=0.5)
    assert module.removed_groups == (1,)
    assert [sum(u // 3 == g for u in module.removed) for g in range(4)] == [1, 3, 1, 1]


def test_a_marked_head_takes_its_group_along():
    measured = synthetic.measurement(heads=12, groups=4)
    module = heads_of(
        measured, {"drop": [4], "keep": [0]}, heads__policy="kv_group", heads__ratio=0.5
    )
    assert len(module.removed_groups) == 2 and 1 in module.removed_groups
    assert 0 not in module.removed_groups
    assert module.reason(4) == module.reason(3) == "key/value group 1 marked by hand"


def test_any_head_goes_where_the_block_is_ungrouped():
    measured = synthetic.measurement(heads=12, groups=4)
    drop = [0, 1, 2, 3, 4, 6, 7, 9]
    module = heads_of(measured, {"drop": drop}, heads__policy="ungroup")
    assert module.ungrouped and list(module.removed) == drop
    # one head alone would not pay for the copies: then as many from each group
    even = heads_of(measured, {"drop": [4]}, heads__policy="ungroup")
    assert not even.ungrouped and len(even.removed) == 4 and 4 in even.removed


def test_auto_takes_a_policy_that_can_honour_the_marks():
    measured = synthetic.measurement(heads=12, groups=4)
    marks = {"drop": [0, 1], "keep": [3, 4, 5]}  # not the same number from each group
    module = heads_of(measured, marks, heads__policy="auto")
    assert {0, 1} <= set(module.removed) and not {3, 4, 5} & set(module.removed)
    assert module.grouped or module.ungrouped


REFUSED = {
    "block beyond the model": ({40: {"keep": [0]}}, {}, "40"),
    "head beyond the block": ({0: {"keep": [12]}}, {}, "head 12"),
    "outside the range": ({0: {"drop": [1]}}, {"blocks__start": 1}, "only blocks 1 to 2"),
    "every head": ({0: {"drop": range(12)}}, {}, "keep at least one"),
    "uneven groups": ({0: {"drop": [0, 1], "keep": [3, 4]}}, {}, "group 0 would give up 2"),
    "a group torn apart": (
        {0: {"drop": [0], "keep": [1]}},
        {"heads__policy": "kv_group"},
        "goes or stays whole",
    ),
    "every group": (
        {0: {"drop": [0, 3, 6, 9]}},
        {"heads__policy": "kv_group"},
        "every key/value group",
    ),
    "no policy at all": (
        {0: {"drop": [0], "keep": [1, *range(3, 12)]}},
        {"heads__policy": "auto"},
        "cannot be",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_marks_that_cannot_be_honoured_are_refused_in_one_sentence(case):
    marks, rule, part = REFUSED[case]
    with pytest.raises(UsageError, match=part) as caught:
        plan_of(synthetic.measurement(heads=12, groups=4), marks, **rule)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("policy", POLICIES)
def test_rescoring_honours_marks(policy):
    marks = {"drop": [1, 4], "keep": [6]}
    measured = synthetic.measurement(2, heads=12, groups=4)
    rule = {"heads__policy": policy, "heads__ratio": 0.5}
    plan = plan_of(measured, {0: marks}, **rule)
    module, shape = plan.blocks[0].attention, plan.shape.blocks[0].attention
    scores = np.ones(12)
    scores[6] = 0.0  # the kept head is now the weakest, the dropped ones the strongest
    scores[[1, 4]] = 9.0
    again = rescored(module, shape, scores, "second_moment")
    check(plan.with_module(again))
    assert {1, 4} <= set(again.removed) and 6 not in again.removed
    assert len(again.removed) == len(module.removed) and again.held == module.held == (6,)
    assert again.ungrouped == module.ungrouped and again.grouped == module.grouped


@pytest.mark.parametrize("name", sorted({*ALLOCATIONS.names()} - {"by_hand"}))
@pytest.mark.parametrize("policy", ["query", "auto"])
def test_a_budget_is_kept_with_marks(name, policy):
    measured = synthetic.predictable(1, heads=12, groups=4)
    marks = {0: {"drop": [0]}, 1: {"keep": range(12)}, 2: {"drop": [3], "keep": [4, 6]}}
    rule = {"allocation": name, "budget__kept": 0.7, "heads__policy": policy}
    plan = plan_of(measured, marks, **rule)
    check(plan)
    assert plan.blocks[1].attention.removed == ()
    assert 0 in plan.blocks[0].attention.removed and 3 in plan.blocks[2].attention.removed
    assert plan.kept_block_parameters <= 0.7 + 1e-6


def test_a_plan_remembers_what_was_kept():
    plan = plan_of(synthetic.measurement(heads=12, groups=12), {0: {"keep": [2], "drop": [5]}})
    again = Plan.from_json(plan.to_json())
    assert again == plan and again.blocks[0].attention.held == (2,)
    broken = plan.to_json().replace('"held":[2]', '"held":[5]')
    with pytest.raises(UsageError, match="marked to keep"):
        Plan.from_json(broken)


@pytest.mark.parametrize("family", ["llama_grouped", "gpt2"])
def test_applied_models_honour_marks(tiny_model, family):
    from pruning.measure import measure

    tiny = tiny_model(family)
    windows = families.windows(tiny)
    measured = measure(tiny.model, windows, name="tiny")
    recipe = families.recipe(heads__ratio=0.5, recovery__rescore=True)
    recipe = recipe.changed(marks={1: {"drop": [1], "keep": [0]}})
    applied = apply(tiny.model, make_plan(measured, recipe), recipe, windows)
    module = applied.plan.blocks[1].attention
    assert 1 in module.removed and 0 in module.kept
