"""Ungrouped blocks: every kept query head has its own copy of its key/value head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import pruning
from pruning.artifacts.plan import Plan, check
from pruning.checkpoint import save
from pruning.measure.windows import windows_for
from pruning.pipeline import prune
from pruning.planning import make_plan
from pruning.planning.head_policies import base
from pruning.planning.selection import attention_parameters
from pruning.surgery.apply import apply
from tests.helpers import families, hand_plans, synthetic

PLAIN = {"recovery__method": "none", "recovery__rescore": False}


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return tiny_model("llama_grouped")


def ungrouped_plan(loaded, heads):
    plan = hand_plans.plan_by_hand(loaded.adapter.model_shape(loaded.model), heads, {})
    for index in heads:
        plan = plan.with_module(replace(plan.blocks[index].attention, ungrouped=True))
    return plan


@pytest.mark.parametrize("heads", [{0: [0, 4]}, {1: [0, 1, 2]}, {0: [5], 2: [1, 2, 3, 4]}])
def test_an_ungrouped_block_equals_the_masked_one(tiny, heads):
    plan = ungrouped_plan(tiny, heads)
    recipe = families.recipe(**PLAIN)
    pruned = apply(tiny.model, plan, recipe, windows_for(tiny, recipe)).model
    ids = families.token_ids()
    with families.masked(tiny, plan) as model:
        expected = families.logits(model, ids)
    torch.testing.assert_close(families.logits(pruned, ids), expected, atol=1e-5, rtol=1e-5)


def test_parameters_are_those_of_the_real_tensors(tiny):
    plan = ungrouped_plan(tiny, {1: [0, 2, 4, 5]})
    recipe = families.recipe(**PLAIN)
    pruned = apply(tiny.model, plan, recipe, windows_for(tiny, recipe)).model
    assert sum(p.numel() for p in pruned.parameters()) == plan.after.parameters
    assert (plan.widths[1].heads, plan.widths[1].kv_heads) == (2, 2)
    assert Plan.from_json(plan.to_json()) == plan


def test_generation_with_and_without_a_cache_agree(tiny):
    plan = ungrouped_plan(tiny, {0: [0, 4, 5], 2: [1, 2, 3]})
    recipe = families.recipe(**PLAIN)
    pruned = apply(tiny.model, plan, recipe, windows_for(tiny, recipe)).model
    ids = families.token_ids(samples=1, seq_len=6)
    with_cache, without = (
        pruned.generate(ids, max_new_tokens=8, do_sample=False, use_cache=use)
        for use in (True, False)
    )
    assert torch.equal(with_cache, without)


def test_it_is_used_only_where_it_saves(tiny):
    measured = synthetic.measurement()
    shape = measured.shape.blocks[0].attention
    whole = shape.parameters(shape.units, shape.groups)
    few = make_plan(measured, families.recipe(heads__ratio=0.2, heads__policy="ungroup"))
    many = make_plan(measured, families.recipe(heads__ratio=0.67, heads__policy="ungroup"))
    for plan in (few, many):
        check(plan)
        assert all(attention_parameters(b.attention, shape) <= whole for b in plan.blocks)
    assert not few.blocks[0].attention.ungrouped
    assert many.blocks[0].attention.ungrouped and len(many.blocks[0].attention.kept) == 2
    assert "rank" in next(iter(many.blocks[0].attention.reasons().values()))
    assert "of 6" in next(iter(many.blocks[0].attention.reasons().values()))


def test_automatic_loses_no_more_than_any_single_policy():
    measured = synthetic.measurement(seed=3)
    shape = measured.shape.blocks[0].attention
    whole = shape.parameters(shape.units, shape.groups)
    plan = make_plan(measured, families.recipe(heads__ratio=0.5, heads__policy="auto"))
    for index, block in enumerate(plan.blocks):
        assert attention_parameters(block.attention, shape) <= 0.5 * whole
        scores = synthetic.head_scores(measured, index)
        lost = sum(scores[unit] for unit in block.attention.removed)
        for policy in ("query", "kv_group", "ungroup"):
            for ratio in (0.34, 0.5, 0.67, 0.84):
                rule = families.recipe(heads__ratio=ratio, heads__policy=policy)
                other = make_plan(measured, rule).blocks[index].attention
                if attention_parameters(other, shape) <= 0.5 * whole:
                    assert lost <= sum(scores[unit] for unit in other.removed) + 1e-9


def test_a_budgeted_run_with_ungrouped_blocks_is_saved_and_loaded(tiny, tmp_path):
    recipe = families.recipe(heads__ratio=0.67, heads__policy="ungroup", ffn__ratio=0.3)
    run = prune(tiny, recipe)
    assert all(w.heads == w.kv_heads == 2 for w in run.widths)
    save(run, tmp_path / "model")
    again = pruning.load(str(tmp_path / "model"), device="cpu")
    ids = families.token_ids()
    assert torch.equal(families.logits(again.model, ids), families.logits(run.pruned.model, ids))


def test_automatic_asks_what_is_alike_once_per_policy_and_block(monkeypatch):
    measured, asked = synthetic.measurement(heads=12, groups=3, blocks=2), []
    found = base.weaker_candidates

    def counted(divergence, *rest):
        asked.append(len(divergence))
        return found(divergence, *rest)

    monkeypatch.setattr(base, "weaker_candidates", counted)
    recipe = families.recipe(heads__ratio=0.5, heads__policy="auto", heads__threshold=0.3)
    assert make_plan(measured, recipe).blocks[0].attention.removed
    # whole groups are compared as groups, the other two compare heads
    assert sorted(asked) == [3, 3, 12, 12, 12, 12]
