"""The same on a real card, where there is one: what the pretended one can only promise."""

from __future__ import annotations

import pytest
import torch

import pruning
from pruning.evaluate import generate, perplexity
from pruning.pipeline import prune
from tests.helpers import families
from tests.helpers.on_device import CUT, losses, on_a_card_as_on_the_cpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("family", families.EVERY_FAMILY)
def test_every_family(family):
    on_a_card_as_on_the_cpu(family, families.recipe(**CUT))


@pytest.mark.parametrize("method", ["none", "bias", "reconstruct", "full"])
@pytest.mark.parametrize("family", ["llama_grouped", "gpt2", "mixtral"])
def test_every_recovery(family, method):
    on_a_card_as_on_the_cpu(family, families.recipe(recovery__method=method, **CUT))


@pytest.mark.parametrize("family", ["llama_biased", "bloom", "qwen2_moe"])
def test_loss_curves_and_augmentations(family):
    recipe = families.recipe(
        budget__kept=0.8, allocation="predicted", heads__policy="auto", recovery__copies=1
    )
    on_a_card_as_on_the_cpu(family, recipe)


@pytest.mark.parametrize("family", ["llama_grouped", "gpt2"])
def test_elimination(family):
    recipe = families.recipe(
        recovery__choice="elimination", ffn__score="second_moment_exact", **CUT
    )
    on_a_card_as_on_the_cpu(family, recipe)


@pytest.mark.parametrize("family", ["llama_grouped", "gpt2", "bloom"])
def test_gradients(family):
    score = {"heads__score": "fisher", "ffn__score": "taylor_element2"}
    on_a_card_as_on_the_cpu(family, families.recipe(**score, **CUT))


@pytest.mark.parametrize("placement", ["whole", "memory", "disk", "spread"])
def test_every_placement(placement, model_folder, tmp_path):
    recipe = families.recipe(**CUT)
    here = prune(pruning.load(str(model_folder), device="cpu"), recipe)
    run = prune(pruning.load(str(model_folder), device="cuda", placement=placement), recipe)
    got = losses(run.pruned)
    torch.testing.assert_close(got, losses(here.pruned), atol=1e-3, rtol=1e-3)
    pruning.save(run, tmp_path / "model")
    again = pruning.load(str(tmp_path / "model"), device="cuda")
    torch.testing.assert_close(losses(again), got)


def test_nothing_cut_is_bit_equal(model_folder):
    loaded = pruning.load(str(model_folder), device="cuda")
    before = losses(loaded)
    run = prune(loaded, families.recipe(heads__ratio=0.0, ffn__ratio=0.0))
    assert torch.equal(losses(run.pruned), before)


def test_the_same_twice(model_folder):
    runs = [
        prune(pruning.load(str(model_folder), device="cuda"), families.recipe(**CUT))
        for _ in range(2)
    ]
    assert torch.equal(losses(runs[0].pruned), losses(runs[1].pruned))


def test_evaluated(model_folder):
    here, there = (pruning.load(str(model_folder), device=device) for device in ("cpu", "cuda"))
    text = {"source": "sample", "seq_len": 32, "windows": 3}
    values = [perplexity(one.model, one.tokenizer, **text).nll for one in (here, there)]
    assert values[1] == pytest.approx(values[0], rel=1e-4)
    written = [
        generate(one.model, one.tokenizer, "A word", max_new_tokens=4).text for one in (here, there)
    ]
    assert written[0] == written[1]
