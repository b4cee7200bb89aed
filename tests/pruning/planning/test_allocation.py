"""How much each module gives up: budgets, rankings, predicted losses."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from pruning.artifacts.measurement import CURVE_POINTS
from pruning.artifacts.plan import check
from pruning.artifacts.recipe import Recipe
from pruning.pipeline import measure_model
from pruning.planning.allocation import ALLOCATIONS
from pruning.planning.allocation.loss_curve import cheapest
from pruning.planning.allocation.ranking import nearest_heads, standardised, weakest
from pruning.planning.loss_curves import Choice, ffn_losses, plan_losses
from pruning.planning.planner import make_plan, needs_gradients, needs_loss_curves
from pruning.utils.errors import NeedsMeasurement, UsageError
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


def test_the_weakest_units_of_all_modules_go():
    scores = [np.array([0.0, 5.0, 1.0]), np.array([2.0, -1.0]), np.array([-9.0])]
    assert weakest(scores, [10, 10, 10], 0) == [0, 0, 0]
    assert weakest(scores, [10, 10, 10], 20) == [1, 1, 0]
    assert weakest(scores, [10, 10, 10], 21) == [2, 1, 0]
    # the best of each stays, also when it is the weakest of all
    assert weakest(scores, [10, 10, 10], 1e9) == [2, 1, 0]


def test_modules_are_compared_as_flap_compares_them(tiny_model):
    """Its released code standardises the channels of a layer and gives a head their mean."""
    recipe = families.recipe(heads__score="flap", ffn__score="flap")
    measured = measure_model(tiny_model("llama_grouped"), recipe)
    for kind in ("attention", "ffn"):
        statistics = measured.blocks[1].module(kind).statistics
        metric = torch.tensor(statistics["input_variance"] * statistics["level2_sq"]).double()
        metric = metric**2 if kind == "attention" else metric
        units = measured.shape.blocks[1].module(kind).units
        wanted = ((metric - metric.mean()) / metric.std(correction=0)).view(units, -1).mean(1)
        found = standardised(measured, recipe, 1, kind)
        assert found == pytest.approx(wanted.numpy(), abs=1e-6)
        assert found.std() == pytest.approx(1.0) if kind == "ffn" else found.std() < 0.9


def test_head_counts_go_to_the_nearest_that_grouped_queries_allow():
    shape = synthetic.predictable().shape.blocks[0].attention
    for units, groups, policy, wanted in (
        (8, 2, "kv_group", [0, 0, 4, 4, 4, 4, 4, 4]),
        (8, 2, "query", [0, 2, 2, 4, 4, 6, 6, 6]),
        (8, 2, "ungroup", [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, 8, "query", [0, 1, 2, 3, 4, 5, 6, 7]),
    ):
        grouped = replace(shape, units=units, groups=groups)
        assert [nearest_heads(count, grouped, policy) for count in range(8)] == wanted


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


def test_by_hand_takes_the_blocks_it_names():
    plan = plan_of(allocation="by_hand", ffn__ratio=0.1, by_hand={1: {"heads": 0.5, "ffn": 0.4}})
    assert [len(b.ffn.removed) for b in plan.blocks] == [4, 15, 4]
    assert [len(b.attention.removed) for b in plan.blocks] == [0, 4, 0]


def test_by_hand_refuses_what_it_would_ignore():
    with pytest.raises(UsageError, match="knows no budget"):
        plan_of(allocation="by_hand", budget__kept=0.8)
    with pytest.raises(UsageError, match="block 2, which is not among.*0 to 1"):
        plan_of(allocation="by_hand", blocks__end=2, by_hand={2: {"heads": 0.0, "ffn": 0.4}})


def test_the_lagrangian_choice_is_the_best_of_its_size():
    random = np.random.default_rng(0)
    offers = [
        [Choice(k, 10 * k, float(loss)) for k, loss in zip(range(4, 0, -1), losses, strict=True)]
        for losses in np.cumsum(np.sort(random.uniform(0, 1, (4, 4)), axis=1), axis=1) - 0.1
    ]
    for kept in range(40, 170, 10):
        found = cheapest(offers, kept)
        size = sum(choice.parameters for choice in found)
        assert size <= kept
        loss = sum(choice.loss for choice in found)
        rivals = (c for c in itertools.product(*offers) if sum(x.parameters for x in c) <= size)
        assert loss <= min(sum(choice.loss for choice in rival) for rival in rivals) + 1e-12


def test_predicted_losses_are_those_of_the_curves_and_least():
    measured = synthetic.predictable(blocks=6, channels=64)
    settings = {"budget__kept": 0.75, "heads__policy": "auto"}
    best = plan_of(measured, allocation="predicted", **settings)
    losses = plan_losses(measured, best)
    kept, curve = len(best.blocks[3].ffn.kept), measured.blocks[3].ffn.statistics["expected_loss"]
    place = kept * CURVE_POINTS / 64
    low, high = curve[int(np.ceil(place))], curve[int(np.floor(place))]
    assert low - 1e-6 <= losses["ffn"][3] <= high + 1e-6
    total = sum(losses["ffn"]) + sum(losses["attention"])
    for name in ("uniform", "adaptive", "adaptive_layers"):
        other = plan_losses(measured, plan_of(measured, allocation=name, **settings))
        assert total < sum(other["ffn"]) + sum(other["attention"])


def test_predicting_needs_its_passes_and_says_so():
    recipe = Recipe.parse({"allocation": "predicted", "budget": {"kept": 0.8}})
    assert needs_loss_curves(recipe) and not needs_gradients(recipe)
    assert not needs_loss_curves(Recipe()) and not needs_gradients(Recipe())
    with pytest.raises(NeedsMeasurement, match="measure again with --curves"):
        make_plan(synthetic.measurement(), recipe)


@pytest.mark.parametrize("multiple", [8, 32])
@pytest.mark.parametrize("name", BUDGETED)
def test_widths_are_multiples(name, multiple):
    measured = synthetic.predictable(blocks=6, channels=200)
    plan = plan_of(measured, allocation=name, budget__kept=0.7, ffn__multiple=multiple)
    for block in plan.blocks:
        kept = len(block.ffn.kept)
        assert kept == 200 or (kept % multiple == 0 and kept > 0)
    assert plan.kept_block_parameters == pytest.approx(0.7, abs=0.08)


def test_every_allocation_says_where_it_comes_from():
    assert set(ALLOCATIONS.names()) == {*BUDGETED, "by_hand"}
    assert all(entry.title and entry.summary and entry.source for entry in ALLOCATIONS)


def test_losses_between_the_points_follow_a_power_law():
    shape = synthetic.shape(channels=800)
    removed = np.arange(CURVE_POINTS, -1, -1) / CURVE_POINTS
    statistics = {"expected_loss": (0.3 * removed**1.5).astype(np.float32)}
    kept = [800, 790, 750, 430, 123, 1]
    found = ffn_losses(statistics, shape.blocks[0].ffn, kept)
    assert found[0] == 0.0
    assert found == pytest.approx([0.3 * (1 - k / 800) ** 1.5 for k in kept], rel=1e-4)


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


@pytest.mark.parametrize("name", BUDGETED)
@pytest.mark.parametrize("kept", [0.75, 0.3])
def test_heads_of_a_single_group_go_one_by_one_whatever_the_policy(name, kept):
    """Whole groups cannot go where there is one: the budget was exceeded without a word."""
    measured = synthetic.predictable(blocks=4, heads=8, groups=1, channels=20)
    rule = {"allocation": name, "budget__kept": kept}
    plan = plan_of(measured, **rule, heads__policy="kv_group")
    check(plan)
    assert plan.kept_block_parameters <= kept
    assert any(block.attention.removed for block in plan.blocks)
    assert plan.widths == plan_of(measured, **rule, heads__policy="query").widths


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


def test_a_plan_says_when_only_channels_go():
    measured = synthetic.predictable(blocks=4, heads=8, groups=2, channels=200)
    (remark,) = plan_of(measured, budget__kept=0.8).remarks
    assert remark.startswith("Only FFN channels go: all heads stay, for a block of 8 heads")
    assert "2 at a time" in remark and len(remark) <= 300
    for silent in (
        {"budget__kept": 0.5},
        {"budget__kept": 0.8, "budget__spare_heads": True},
        {"ffn__ratio": 0.2},
        {},
    ):
        assert plan_of(measured, **silent).remarks == ()
