"""The library in a few names, on tiny models of transformers and from a folder."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import pruning
import pruning.pipeline
from pruning.api import IN_MEMORY, from_memory
from pruning.artifacts.recipe import Recipe
from pruning.utils.errors import Unsupported, UsageError
from tests.helpers import families

TINY = {"calibration": "random", "samples": 4, "seq_len": 12}


@pytest.fixture(scope="module")
def model():
    return families.build("llama_grouped")


@pytest.fixture(scope="module")
def pruned(model):
    return pruning.prune(model, preset="second_moment", keep=0.8, **TINY)


def test_a_model_in_memory_is_pruned_and_stays_as_it_was(model, pruned):
    before, ids = families.snapshot(families.build("llama_grouped")), families.token_ids()
    assert families.unchanged(model, before)
    assert pruned.report.kept_block_parameters <= 0.8
    assert not torch.equal(families.logits(pruned.model, ids), families.logits(model, ids))


def test_it_gives_what_the_engine_gives(model, pruned):
    recipe = pruned.recipe
    run = pruning.pipeline.prune(families.wrap(model, "tiny"), recipe)
    ids = families.token_ids()
    assert torch.equal(families.logits(run.pruned.model, ids), families.logits(pruned.model, ids))
    assert recipe.heads.score == "second_moment_exact" and recipe.model.source == IN_MEMORY


def test_training_mode_and_gradients_of_the_callers_model_stay(model):
    own = families.build("llama_grouped").train().requires_grad_(True)
    done = pruning.prune(own, keep=0.9, preset="llm_pruner_vector", **TINY)
    assert own.training and all(p.requires_grad for p in own.parameters())
    assert all(p.grad is None for p in own.parameters())
    same = pruning.prune(model, keep=0.9, preset="llm_pruner_vector", **TINY)
    ids = families.token_ids()
    assert torch.equal(families.logits(done.model, ids), families.logits(same.model, ids))


def test_other_weights_are_measured_anew():
    """One changed element is enough: what is cached is keyed by all of the content."""
    one, other = families.build("llama_grouped"), families.build("llama_grouped")
    other.model.layers[1].mlp.up_proj.weight[5, 7] += 0.5
    keys = {from_memory(each).identity for each in (one, other)}
    assert len(keys) == 2


def test_saved_and_loaded_again(pruned, tmp_path):
    ids = families.token_ids()
    folder = pruned.save_pretrained(tmp_path / "small")
    again = pruning.load(str(folder))
    assert torch.equal(families.logits(again.model, ids), families.logits(pruned.model, ids))
    plain = AutoModelForCausalLM.from_pretrained(
        pruned.save_pretrained(tmp_path / "plain", form="padded")
    ).eval()
    torch.testing.assert_close(
        families.logits(plain, ids), families.logits(pruned.model, ids), atol=1e-5, rtol=1e-5
    )


def test_a_name_a_recipe_and_arguments_that_win_over_it(model_folder):
    recipe = Recipe.parse({"ffn": {"ratio": 0.5}, "recovery": {"method": "none"}, "seed": 3})
    done = pruning.prune(str(model_folder), recipe=recipe, seed=4, **TINY)
    assert done.recipe.seed == 4 and done.recipe.ffn.ratio == 0.5
    assert done.recipe.recovery.method == "none"
    assert done.recipe.model.source == str(model_folder)
    assert done.tokenizer is not None


def test_perplexities_go_into_the_card(model_folder, tmp_path):
    done = pruning.prune(str(model_folder), keep=0.9, **TINY)
    evaluated = done.evaluate("sample", seq_len=32, windows=4)
    assert done.evaluation is None
    assert 1.0 < evaluated.evaluation.before and 1.0 < evaluated.evaluation.after
    card = (evaluated.save_pretrained(tmp_path / "model") / "README.md").read_text()
    assert f"{evaluated.evaluation.after:.2f}" in card


def test_refusals_come_before_work(model, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match="cannot be int"):
        pruning.prune(3)
    with pytest.raises(Unsupported, match="no config"):
        pruning.prune(torch.nn.Linear(2, 2))
    with pytest.raises(UsageError, match="preset"):
        pruning.prune(model, preset="bst")
    with pytest.raises(UsageError, match="kept"):
        pruning.prune(model, keep=1.5)
    with torch.device("meta"):
        empty = families.EVERY_FAMILY["llama_grouped"]()
    with pytest.raises(Unsupported, match="meta"):
        pruning.prune(empty)


def test_nothing_is_uploaded_without_a_token(pruned, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match="HF_TOKEN"):
        pruned.push_to_hub("you/small")
    with pytest.raises(UsageError, match="owner/name"):
        pruned.push_to_hub("small")
