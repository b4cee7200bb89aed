"""A run in depth, on three layouts: every method, cancelled runs, the same tensors twice."""

from __future__ import annotations

import pytest
import torch

from pruning.pipeline import prune
from pruning.utils.errors import Cancelled
from tests.helpers import counting, families

CASES = [(family, seed) for family in families.FAMILIES for seed in (0, 1)]
MIXED = {"heads__threshold": 0.3, "ffn__ratio": 0.5}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}", scope="module")
def tiny(request, tiny_model):
    return tiny_model(*request.param)


@pytest.mark.parametrize("method", ["none", "bias", "refit", "reconstruct", "full"])
def test_ratio_zero_changes_nothing(tiny, method):
    run = prune(tiny, families.recipe(recovery__method=method))
    ids = families.token_ids()
    assert run.plan.is_empty and run.events == ()
    assert torch.equal(families.logits(run.pruned.model, ids), families.logits(tiny.model, ids))


def test_similar_heads_and_channels_equal_masked(tiny):
    run = prune(tiny, families.recipe(**MIXED, **families.PLAIN))
    assert not run.plan.is_empty
    ids = families.token_ids()
    with families.masked(tiny, run.plan) as model:
        expected = families.logits(model, ids)
    got = families.logits(run.pruned.model, ids)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_counts_include_the_biases_that_compensation_adds(tiny):
    run = prune(tiny, families.recipe(**MIXED, recovery__method="bias"))
    counting.check_counts(run.dense, run.report.before)
    counting.check_counts(run.pruned, run.report.after)


def test_the_dense_model_survives_a_run(tiny):
    before, ids = families.snapshot(tiny.model), families.token_ids()
    expected = families.logits(tiny.model, ids)
    kernel = tiny.model.config._attn_implementation
    prune(tiny, families.recipe(heads__ratio=0.4, ffn__ratio=0.4, recovery__method="full"))
    assert families.unchanged(tiny.model, before)
    assert torch.equal(families.logits(tiny.model, ids), expected)
    assert tiny.model.config._attn_implementation == kernel
    assert not hasattr(tiny.model.config, "headroom")


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 7])
def test_the_dense_model_survives_a_cancelled_run(tiny, steps):
    before, ids = families.snapshot(tiny.model), families.token_ids()
    expected = families.logits(tiny.model, ids)
    kernel = tiny.model.config._attn_implementation
    recipe = families.recipe(
        heads__ratio=0.4, ffn__ratio=0.4, recovery__method="full", seed=1000 + steps
    )  # a seed of its own: no cached measurement shortens the run
    calls = iter(range(100))
    with pytest.raises(Cancelled):
        prune(tiny, recipe, should_cancel=lambda: next(calls) >= steps)
    assert families.unchanged(tiny.model, before)
    assert torch.equal(families.logits(tiny.model, ids), expected)
    assert tiny.model.config._attn_implementation == kernel


@pytest.mark.parametrize("method", ["none", "bias", "refit", "reconstruct", "full"])
def test_the_same_recipe_gives_the_same_tensors(tiny, method):
    recipe = families.recipe(heads__ratio=0.4, ffn__ratio=0.4, recovery__method=method)
    first, second = prune(tiny, recipe), prune(tiny, recipe)
    assert families.unchanged(second.pruned.model, first.pruned.model.state_dict())
    assert first.plan == second.plan and first.widths == second.widths


def test_another_seed_calibrates_on_other_tokens(tiny):
    runs = [prune(tiny, families.recipe(ffn__ratio=0.4, seed=seed)) for seed in (0, 1)]
    one, other = (run.pruned.model.state_dict() for run in runs)
    assert any(one[k].shape != other[k].shape or not torch.equal(one[k], other[k]) for k in one)
