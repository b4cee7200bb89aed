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
