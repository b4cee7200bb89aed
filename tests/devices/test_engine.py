"""The engine on a pretended accelerator: every family, recovery and placement, as on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import pruning
from pruning.evaluate.perplexity import batched_losses
from pruning.pipeline import prune
from tests.helpers import families
from tests.helpers.virtual_device import virtual_device

KINDS = ("cuda", "mps")
CUT = {"heads__ratio": 0.3, "ffn__ratio": 0.3}


def losses(loaded):
    ids = families.token_ids()
    return torch.cat([part.cpu().flatten() for part in batched_losses(loaded.model, ids)])


def moved(family, kind):
    """A tiny model on the device; what is measured there is not mixed with the CPU's."""
    model = families.build(family).to(kind)
    return replace(families.wrap(model, f"{family}-{kind}"), identity=f"{kind}:{family}")


def as_on_the_cpu(family, kind, recipe):
    """Both pruned models lose the same on every token, and the device's stays there."""
    expected = losses(prune(families.wrap(families.build(family), family), recipe).pruned)
    with virtual_device(kind):
        run = prune(moved(family, kind), recipe)
        assert {p.device.type for p in run.pruned.model.parameters()} == {kind}
        got = losses(run.pruned)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", families.EVERY_FAMILY)
def test_every_family(family, kind):
    as_on_the_cpu(family, kind, families.recipe(**CUT))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["none", "bias", "reconstruct", "full"])
@pytest.mark.parametrize("family", ["llama_grouped", "gpt2", "mixtral"])
def test_every_recovery(family, method, kind):
    as_on_the_cpu(family, kind, families.recipe(recovery__method=method, **CUT))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama_biased", "bloom", "qwen2_moe"])
def test_loss_curves_and_augmentations(family, kind):
    recipe = families.recipe(
        budget__kept=0.8, allocation="predicted", heads__policy="auto", recovery__copies=1
    )
    as_on_the_cpu(family, kind, recipe)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama_grouped", "gpt2", "bloom"])
def test_gradients(family, kind):
    score = {"heads__score": "fisher", "ffn__score": "taylor_element2"}
    as_on_the_cpu(family, kind, families.recipe(**score, **CUT))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("placement", ["whole", "memory", "disk"])
def test_every_placement(placement, kind, model_folder):
    recipe = families.recipe(**CUT)
    expected = losses(prune(pruning.load(str(model_folder), device="cpu"), recipe).pruned)
    with virtual_device(kind):
        loaded = pruning.load(str(model_folder), device=kind, placement=placement)
        got = losses(prune(loaded, recipe).pruned)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_two_cards(model_folder):
    recipe = families.recipe(**CUT)
    expected = losses(prune(pruning.load(str(model_folder), device="cpu"), recipe).pruned)
    with virtual_device("cuda", cards=2):
        loaded = pruning.load(str(model_folder), device="cuda", placement="spread")
        places = {str(p.device) for p in loaded.model.parameters()}
        got = losses(prune(loaded, recipe).pruned)
    assert places == {"cuda:0", "cuda:1"}
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_from_a_device(kind, tmp_path):
    run = as_on_the_cpu("llama_grouped", kind, families.recipe(**CUT))
    with virtual_device(kind):
        expected = losses(run.pruned)
        pruning.save(run, tmp_path / "model")
    torch.testing.assert_close(losses(pruning.load(str(tmp_path / "model"))), expected)
