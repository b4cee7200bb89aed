"""The padded form of every family: the original shape, zeros where something went."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import pruning
from pruning.checkpoint import parts_of, save
from pruning.checkpoint.rewrite.pad import padded_model
from pruning.pipeline import prune
from pruning.utils.errors import Unsupported
from tests.helpers import families, hand_plans
from tests.helpers.form_cases import (
    EXPERTS_AND_HEADS,
    UNEVEN,
    WITHOUT_SWITCH,
    close,
    family_of,
    ungrouped,
)

WAYS = [("bias", "auto"), ("full", "auto"), ("refit", "add")]


@pytest.fixture(params=families.EVERY_FAMILY, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


@pytest.mark.parametrize(("method", "intercept"), WAYS)
def test_padded_is_the_same_model_in_the_original_shape(tiny, tmp_path, method, intercept):
    recipe = families.recipe(**UNEVEN, recovery__method=method, recovery__intercept=intercept)
    run, ids = prune(tiny, recipe), families.token_ids()
    added = method == "bias" or intercept == "add"
    if added and family_of(tiny) in WITHOUT_SWITCH | {"gptj", *EXPERTS_AND_HEADS}:
        with pytest.raises(Unsupported, match="Recovery added biases to the .* no setting"):
            save(run, tmp_path / "out", "padded")
        return
    model, _ = padded_model(parts_of(run))
    folder = save(run, tmp_path / "out", "padded")
    loaded = families.plain(folder, like=tiny.model)
    assert type(loaded) is type(tiny.model)
    assert torch.equal(families.logits(loaded, ids), families.logits(model, ids))
    assert close(families.logits(loaded, ids), families.logits(run.pruned.model, ids))
    old, new = tiny.model.config, AutoConfig.from_pretrained(folder)
    assert new.hidden_size == old.hidden_size and not hasattr(new, "headroom")
    shapes = {name: p.shape for name, p in loaded.named_parameters()}
    dense = {name: p.shape for name, p in tiny.model.named_parameters()}
    assert dense.items() <= shapes.items()
    assert all(name.endswith("bias") for name in shapes.keys() - dense.keys())


def test_padded_without_recovery_keeps_the_original_places(tiny, tmp_path):
    """What stays is where it was, bit for bit; what went is zero."""
    run = prune(tiny, families.recipe(**UNEVEN, recovery__method="none"))
    loaded = AutoModelForCausalLM.from_pretrained(save(run, tmp_path / "out", "padded"))
    dense = dict(tiny.model.named_parameters())
    zeros = 0
    for name, parameter in loaded.named_parameters():
        same = parameter == dense[name]
        assert bool((same | (parameter == 0)).all()), name
        zeros += int((~same).sum())
    before, after = run.report.before.parameters, run.report.after.parameters
    assert zeros == before - after


@pytest.mark.parametrize("method", ["none", "refit", "full"])
def test_an_ungrouped_model_is_padded_into_its_groups(tiny_model, tmp_path, method):
    """Key/value heads are repeated after any fit of in_proj, so they are copies."""
    for family in ("llama_grouped", "qwen2", "phi3"):
        run = ungrouped(tiny_model(family), recovery__method=method)
        loaded = AutoModelForCausalLM.from_pretrained(save(run, tmp_path / family, "padded"))
        ids = families.token_ids()
        assert loaded.config.num_key_value_heads == 2 and loaded.config.num_attention_heads == 6
        assert close(families.logits(loaded, ids), families.logits(run.pruned.model, ids))


def crowded(tiny_model):
    """Four heads that share two key/value heads, each with a copy of its own, and cut again."""
    loaded = tiny_model("llama_grouped")
    plan = hand_plans.plan_by_hand(loaded.adapter.model_shape(loaded.model), {1: [2, 5]}, {})
    plan = plan.with_module(replace(plan.blocks[1].attention, ungrouped=True))
    first = prune(loaded, families.recipe(recovery__rescore=False), plan=plan)
    assert (first.widths[1].heads, first.widths[1].kv_heads) == (4, 4)
    return prune(first.pruned, families.recipe(ffn__ratio=0.3))


def test_padding_finds_the_copies_after_another_cut(tiny_model, tmp_path):
    run, ids = crowded(tiny_model), families.token_ids()
    loaded = AutoModelForCausalLM.from_pretrained(save(run, tmp_path / "m", "padded"))
    assert close(families.logits(loaded, ids), families.logits(run.pruned.model, ids))


def test_padding_refuses_key_heads_that_are_no_copies(tiny_model, tmp_path):
    run = crowded(tiny_model)
    keys = run.pruned.model.model.layers[1].self_attn.k_proj
    keys.weight.data[0] += 1
    with pytest.raises(Unsupported, match="Block 1 was ungrouped .* no longer copies"):
        save(run, tmp_path / "m", "padded")
    assert not list(tmp_path.iterdir())


def test_padded_after_pruning_twice(tmp_path, tiny):
    first = prune(tiny, families.recipe(**UNEVEN))
    loaded = pruning.load(str(save(first, tmp_path / "first")), device="cpu")
    second = prune(loaded, families.recipe(ffn__ratio=0.2))
    folder, ids = save(second, tmp_path / "second", "padded"), families.token_ids()
    padded = families.plain(folder, like=tiny.model)
    assert close(families.logits(padded, ids), families.logits(second.pruned.model, ids))
