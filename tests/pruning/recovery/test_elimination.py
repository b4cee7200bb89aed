"""Elimination under the refit, beside a search that solves every candidate anew."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pruning.artifacts.plan import ELIMINATION
from pruning.measure.curve_fit import ProbedPart, Probes, loss_curves
from pruning.pipeline import measure_model, prune
from pruning.recovery.solvers.dual import DualNormalEquations
from pruning.recovery.solvers.elimination import LIGHT, in_turn
from pruning.recovery.solvers.normal_equations import NormalEquations
from tests.helpers import families


def layer(tokens, inputs=12, outputs=4):
    """Inputs that can stand in for each other, targets and weights; float64."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(tokens + inputs + inputs, inputs, generator=generator, dtype=torch.float64)
    x = values[:tokens] @ values[tokens : tokens + inputs]
    weight = values[tokens + inputs :, :outputs]
    noise = torch.randn(tokens, outputs, generator=generator, dtype=torch.float64)
    return x, x @ weight + noise, weight


def least(x, target, present, kept, ridge):
    """The least of ``‖X W − T‖² + λ‖W − P‖²`` with only the inputs ``kept``, by stacked rows."""
    rows = torch.cat([x[:, kept], ridge**0.5 * torch.eye(len(kept), dtype=x.dtype)])
    goal = torch.cat([target, ridge**0.5 * present[kept]])
    found = torch.linalg.lstsq(rows, goal).solution
    return (rows @ found - goal).square().sum().item()


def searched(x, target, present, ridge, width, keep):
    """The order in which units go when all candidates are solved for every time."""
    left, order = list(range(x.shape[1] // width)), []
    while len(left) > keep:
        errors = {}
        for unit in left:
            kept = [u * width + k for u in left if u != unit for k in range(width)]
            errors[unit] = least(x, target, present, kept, ridge)
        order.append(min(errors, key=errors.get))
        left.remove(order[-1])
    return order


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("tokens", [40, 9])
def test_units_go_in_the_order_of_a_search(tokens, width):
    x, target, present = layer(tokens)
    ridge = LIGHT * x.square().sum().item() / x.shape[1]
    wanted = searched(x, target, present, ridge, width, keep=1)
    summed = NormalEquations.zeros(*present.shape, torch.device("cpu"))
    summed.add(x, target)
    for tokens_of in (summed, DualNormalEquations(x, target)):
        elimination = tokens_of.elimination(present, None, LIGHT, intercept=False)
        turns = in_turn(elimination, len(present) // width, width, keep=1, rounds=99)
        assert turns.argsort()[: len(wanted)].tolist() == wanted


def test_a_bias_that_is_free_is_solved_for():
    x, target, present = layer(40)
    bias = torch.zeros(4, dtype=torch.float64)
    moved, shifted = x + 5.0, target - 7.0
    plain = DualNormalEquations(x - x.mean(0), target - target.mean(0))
    wanted = plain.elimination(present, None, LIGHT, intercept=False).costs(1)
    summed = NormalEquations.zeros(*present.shape, torch.device("cpu"))
    summed.add(moved, shifted)
    for tokens in (summed.in_float64(), DualNormalEquations(moved, shifted)):
        found = tokens.elimination(present, bias, LIGHT, intercept=True).costs(1)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_every_part_loses_as_many_and_marks_are_heeded():
    x, target, present = layer(40)
    elimination = DualNormalEquations(x, target).elimination(present, None, LIGHT, False)
    turns = in_turn(elimination, 12, 1, keep=4, parts=4, first=(7,), never=(0,))
    gone = turns.argsort()[:8]
    assert turns[7] == 0 and 0 not in gone
    assert sorted(turns.tolist()) == list(range(12))
    elimination = DualNormalEquations(x, target).elimination(present, None, LIGHT, False)
    even = in_turn(elimination, 12, 1, keep=4, parts=4).argsort()[:8]
    assert np.bincount(even // 3).tolist() == [2, 2, 2, 2]
    assert in_turn(None, 3, 1).tolist() == [0, 1, 2]  # a layer without a signal


CUT = {"heads__ratio": 0.5, "ffn__ratio": 0.4, "heads__policy": "auto"}


@pytest.mark.parametrize("family", [*families.FAMILIES, "mixtral"])
def test_every_family_is_cut_by_elimination(tiny_model, family):
    """As many units as by score, the same twice, and the first module is repaired as well."""
    loaded = tiny_model(family)
    by_score = prune(loaded, families.recipe(**CUT))
    recipe = families.recipe(**CUT, recovery__choice="elimination")
    run, again = prune(loaded, recipe), prune(loaded, recipe)
    assert run.widths == by_score.widths
    for event, twin in zip(run.events, again.events, strict=True):
        assert set(event.decision.criteria) == {ELIMINATION}
        assert event.decision == twin.decision and event.error_after == twin.error_after
    first = (run.events[0].error_after, by_score.events[0].error_after)
    assert first[0] <= first[1] * 1.05
    for one, two in zip(
        run.pruned.model.parameters(), again.pruned.model.parameters(), strict=True
    ):
        assert torch.equal(one, two)


def test_marks_win_over_elimination(tiny_model):
    loaded = tiny_model("llama_grouped")
    recipe = families.recipe(**CUT, recovery__choice="elimination")
    recipe = recipe.changed(heads={"policy": "query"}, marks={0: {"keep": [0], "drop": [3]}})
    decision = prune(loaded, recipe).plan.blocks[0].attention
    assert 0 in decision.kept and 3 in decision.removed


def test_only_recoveries_that_refit_eliminate(tiny_model):
    loaded = tiny_model("llama_grouped")
    for method in ("none", "bias", "reconstruct"):
        recipe = families.recipe(**CUT, recovery__method=method, recovery__choice="elimination")
        run = prune(loaded, recipe)
        assert all(ELIMINATION not in event.decision.criteria for event in run.events)


def test_a_curve_by_elimination_gives_up_what_others_can_stand_in_for():
    """Channel 1 says what channel 0 says, loudly; channel 7 is weak but says something else."""
    generator = torch.Generator().manual_seed(0)
    inputs, weight, gradient = (
        torch.randn(size, generator=generator) for size in ((64, 8), (8, 3), (64, 3))
    )
    inputs[:, 1] = 2.0 * inputs[:, 0]
    inputs[:, 7] *= 0.2
    gram = (inputs.T @ inputs).double()
    importance = gram.diagonal() * weight.double().square().sum(1)
    part = ProbedPart(gram, 1e-3, weight, importance, torch.arange(64), inputs, gradient @ weight.T)
    module = SimpleNamespace(kind="ffn", units=8, groups=0, unit_width=1)
    by_score, eliminated = (
        loss_curves(module, [part], Probes(64, 0, 64), eliminates)["expected_loss"]
        for eliminates in (False, True)
    )
    assert eliminated[7] < 0.01 * by_score[7]
    assert eliminated[8] == by_score[8] == 0.0
    assert eliminated[0] == pytest.approx(by_score[0])


def test_loss_curves_are_measured_as_the_recipe_says(tiny_model):
    loaded = tiny_model("llama_grouped")
    recipe = families.recipe(budget__kept=0.8, allocation="predicted", calibration__samples=8)
    chosen = recipe.changed(recovery={"choice": "elimination", "copies": 1})
    wanted = (recipe, chosen, chosen.changed(calibration={"curve_samples": 4}))
    blocks = [measure_model(loaded, one).blocks[0] for one in wanted]
    for name in ("expected_loss", "query_expected_loss", "kv_group_expected_loss"):
        curves = [block.attention.statistics[name] for block in blocks]
        assert all(curve[-1] == 0.0 and curve[0] > 0.0 for curve in curves)
    by_score, eliminated, fewer = (block.ffn.statistics["expected_loss"] for block in blocks)
    assert by_score[0] == eliminated[0] != fewer[0]
    assert not np.allclose(by_score, eliminated, rtol=1e-3)
