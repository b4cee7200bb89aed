"""A budget is met and used, whatever the allocation; one that cannot be met is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pruning.artifacts.plan import check
from pruning.artifacts.recipe import Recipe
from pruning.planning.planner import make_plan
from pruning.utils.errors import UsageError
from tests.helpers import families, synthetic

BUDGETED = ["uniform", "adaptive_layers", "adaptive_modules", "adaptive", "predicted"]


def plan_of(measured=None, **changes):
    return make_plan(measured or synthetic.predictable(), families.recipe(**changes))


@pytest.mark.parametrize("policy", ["query", "kv_group", "ungroup", "auto"])
@pytest.mark.parametrize("kept", [0.9, 0.7, 0.5])
@pytest.mark.parametrize("name", BUDGETED)
def test_a_budget_is_met_and_used(name, kept, policy):
    measured = synthetic.predictable(blocks=6, channels=200)
    plan = plan_of(measured, allocation=name, budget__kept=kept, heads__policy=policy)
    check(plan)
    assert plan.kept_block_parameters <= kept + 1e-9
    # within what one channel per block and the coarsest step of the predicted widths make
    assert plan.kept_block_parameters > kept - 0.02


def test_budgets_of_the_whole_model_and_in_megabytes_agree():
    measured = synthetic.predictable(blocks=6, channels=200)
    whole = plan_of(measured, budget__kept=0.8, budget__of="model")
    before = whole.before.parameters
    assert whole.after.parameters <= 0.8 * before < whole.after.parameters * 1.02
    same = plan_of(measured, budget__megabytes=0.8 * before * 4 / 1e6)
    assert same.widths == whole.widths


def test_an_impossible_budget_is_refused_with_what_is_possible():
    with pytest.raises(UsageError, match="of the block parameters stay"):
        plan_of(budget__kept=0.01)
    with pytest.raises(UsageError, match="not both"):
        Recipe.parse({"budget": {"kept": 0.5, "megabytes": 10}})


def test_a_uniform_budget_takes_as_many_whole_heads_as_are_within_its_share():
    """Of 8 heads in 2 groups; the rest comes from the channels, the same number everywhere."""
    measured = synthetic.predictable(blocks=4, heads=8, groups=2, channels=200)
    gone = {"query": (0, 0, 4), "kv_group": (0, 0, 4), "ungroup": (0, 2, 4)}
    for policy, counts in gone.items():
        for kept, count in zip((0.9, 0.8, 0.49), counts, strict=True):
            plan = plan_of(measured, budget__kept=kept, heads__policy=policy)
            widths = {(len(b.attention.removed), len(b.ffn.removed)) for b in plan.blocks}
            assert [heads for heads, _ in widths] == [count]
            assert plan.kept_block_parameters <= kept


@pytest.mark.parametrize("name", BUDGETED)
def test_nothing_to_remove_removes_nothing(name):
    assert plan_of(allocation=name).is_empty
    assert plan_of(allocation=name, budget__kept=1.0).is_empty


@pytest.mark.parametrize("name", BUDGETED)
def test_the_range_holds_for_budgets(name):
    measured = synthetic.predictable(blocks=6, channels=200)
    plan = plan_of(measured, allocation=name, budget__kept=0.8, blocks__start=2, blocks__end=5)
    assert plan.kept_block_parameters <= 0.8
    for index in (0, 1, 5):
        assert not plan.blocks[index].attention.removed and not plan.blocks[index].ffn.removed


@pytest.mark.parametrize("name", ["adaptive_layers", "adaptive_modules", "adaptive", "predicted"])
def test_ratios_without_a_budget_set_the_size(name):
    measured = synthetic.predictable(blocks=6, channels=200)
    uniform = plan_of(measured, heads__ratio=0.34, ffn__ratio=0.6)
    found = plan_of(measured, allocation=name, heads__ratio=0.34, ffn__ratio=0.6)
    assert found.kept_block_parameters <= uniform.kept_block_parameters + 1e-9
    assert found.kept_block_parameters > uniform.kept_block_parameters - 0.02
    assert found.widths != uniform.widths


@pytest.mark.parametrize("policy", ["query", "auto"])
@pytest.mark.parametrize("name", BUDGETED)
def test_a_budget_can_spare_the_heads(name, policy):
    measured = synthetic.predictable(blocks=6, channels=200)
    rule = {"allocation": name, "budget__kept": 0.8, "heads__policy": policy}
    plan = plan_of(measured, **rule, budget__spare_heads=True)
    check(plan)
    assert all(block.attention.removed == () for block in plan.blocks)
    assert 0.8 - 0.02 < plan.kept_block_parameters <= 0.8 + 1e-9
    # the plan is one of the model as it is
    assert plan.shape == measured.shape


def test_a_budget_that_the_channels_cannot_meet_is_refused():
    with pytest.raises(UsageError, match="all heads and one channel left"):
        plan_of(synthetic.predictable(), budget__kept=0.1, budget__spare_heads=True)


@pytest.mark.parametrize("name", BUDGETED)
def test_what_fixed_modules_keep_the_others_give(name):
    measured = synthetic.predictable(blocks=6, channels=200)
    fixed = tuple(
        replace(block, attention=replace(block.attention, fixed="Heads share one norm."))
        for block in measured.shape.blocks
    )
    measured = replace(measured, shape=replace(measured.shape, blocks=fixed))
    plan = plan_of(measured, allocation=name, budget__kept=0.7)
    check(plan)
    assert not any(block.attention.removed for block in plan.blocks)
    assert 0.68 < plan.kept_block_parameters <= 0.7


@pytest.mark.parametrize("policy", ["query", "kv_group", "ungroup", "auto"])
@pytest.mark.parametrize("name", BUDGETED)
def test_a_tight_budget_is_met_whatever_the_steps_of_the_heads(name, policy):
    """The channels alone are not enough for what the heads' share is rounded by."""
    measured = synthetic.predictable(blocks=4, heads=8, groups=2, channels=9)
    for kept in (0.5, 0.62, 0.74):
        plan = plan_of(measured, allocation=name, budget__kept=kept, heads__policy=policy)
        check(plan)
        assert plan.kept_block_parameters <= kept


@pytest.mark.parametrize("name", BUDGETED)
def test_a_budget_is_a_limit_also_where_widths_are_rounded(name):
    measured = synthetic.predictable(blocks=6, channels=200)
    for kept in (0.9, 0.75, 0.5):
        plan = plan_of(measured, allocation=name, budget__kept=kept, ffn__multiple=32)
        assert plan.kept_block_parameters <= kept


def test_a_budget_that_marks_make_impossible_is_refused():
    measured = synthetic.predictable(blocks=3, heads=8, groups=8, channels=9)
    marks = {index: {"keep": list(range(8))} for index in range(3)}
    with pytest.raises(UsageError, match="budget cannot be met: 84.7% of the block parameters"):
        plan_of(measured, budget__kept=0.4, marks=marks)


@pytest.mark.parametrize("name", BUDGETED)
def test_biases_that_recovery_adds_are_within_the_budget(name):
    measured = synthetic.predictable(blocks=6, channels=200)
    added = 2 * 6 * synthetic.HIDDEN
    for rule, biases in (
        ({"recovery__method": "bias"}, added),
        ({"recovery__intercept": "add"}, added),
        ({"recovery__intercept": "add", "recovery__method": "none"}, 0),
        ({}, 0),
    ):
        plan = plan_of(measured, allocation=name, budget__kept=0.7, **rule)
        whole = plan_of(measured, allocation=name, budget__kept=0.7)
        left = 0.7 * plan.before.block_parameters - plan.after.block_parameters
        assert left >= biases
        assert (plan.widths == whole.widths) == (biases == 0)
    assert plan_of(measured, recovery__method="bias", budget__kept=1.0).is_empty
