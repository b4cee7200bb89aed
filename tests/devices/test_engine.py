"""Every pass and placement on a pretended accelerator, as on the CPU."""

from __future__ import annotations

import pytest
import torch

import pruning
from pruning.evaluate import generate, perplexity, tokens_per_second
from pruning.measure import forward_pass
from pruning.models.execution import blockwise
from pruning.models.execution.blockwise import embed
from pruning.models.limits import STREAM_BYTES
from pruning.pipeline import prune
from pruning.surgery import recovery_check, streams
from tests.helpers import families
from tests.helpers.on_device import CUT, KINDS, as_on_the_cpu, losses, moved
from tests.helpers.virtual_device import virtual_device

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("method", ["none", "bias", "reconstruct", "full"])
@pytest.mark.parametrize("family", ["llama_grouped", "gpt2", "mixtral"])
def test_every_recovery(family, method, kind):
    as_on_the_cpu(family, kind, families.recipe(recovery__method=method, **CUT))


@pytest.mark.parametrize("family", ["llama_biased", "bloom", "qwen2_moe"])
def test_loss_curves_and_augmentations(family, kind):
    recipe = families.recipe(
        budget__kept=0.8, allocation="predicted", heads__policy="auto", recovery__copies=1
    )
    as_on_the_cpu(family, kind, recipe)


@pytest.mark.parametrize("family", ["llama_grouped", "gpt2", "bloom"])
def test_gradients(family, kind):
    score = {"heads__score": "fisher", "ffn__score": "taylor_element2"}
    as_on_the_cpu(family, kind, families.recipe(**score, **CUT))


@pytest.mark.parametrize(("method", "cards"), [("lora", 1), ("full", 2)])
def test_training(method, cards, kind):
    # small steps: AdamW turns what is almost nothing into a whole step of either sign
    rule = {"tune__method": method, "tune__learning_rate": 1e-6, "tune__keep_better": False}
    if kind == "mps":
        cards = 1
    run = as_on_the_cpu("llama_grouped", kind, families.recipe(**rule, **CUT), cards)
    assert run.report.tuning.kept == "tuned"


@pytest.mark.parametrize("placement", ["whole", "memory", "disk"])
def test_every_placement(placement, kind, model_folder):
    recipe = families.recipe(**CUT)
    expected = losses(prune(pruning.load(str(model_folder), device="cpu"), recipe).pruned)
    with virtual_device(kind):
        loaded = pruning.load(str(model_folder), device=kind, placement=placement)
        got = losses(prune(loaded, recipe).pruned)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("most", [0, STREAM_BYTES])
def test_the_streams_stay_on_the_device_while_they_are_small(most, kind, monkeypatch):
    monkeypatch.setattr(blockwise, "STREAM_BYTES", most)
    places = set()

    def embedded(*args, **how):
        hidden = embed(*args, **how)
        places.add(hidden.device.type)
        return hidden

    for module in (forward_pass, streams, recovery_check):
        monkeypatch.setattr(module, "embed", embedded)
    recipe = families.recipe(recovery__keep_better=True, seed=most % 7, **CUT)
    as_on_the_cpu("llama_grouped", kind, recipe)
    assert (kind in places) == (most > 0)


def test_saved_from_a_device(kind, tmp_path):
    run = as_on_the_cpu("llama_grouped", kind, families.recipe(**CUT))
    with virtual_device(kind):
        expected = losses(run.pruned)
        pruning.save(run, tmp_path / "model")
    torch.testing.assert_close(losses(pruning.load(str(tmp_path / "model"))), expected)


def test_timing_waits_until_the_device_has_finished(kind, monkeypatch):
    finished = []
    with virtual_device(kind):
        monkeypatch.setattr(getattr(torch, kind), "synchronize", lambda *_: finished.append(kind))
        loaded = moved("llama_grouped", kind)
        tokens_per_second(loaded.model, prompt_tokens=4, new_tokens=2, repeats=2)
    assert len(finished) == 2 * 3  # before and after reading, and after writing


def test_evaluated_on_a_device(kind, model_folder):
    here = pruning.load(str(model_folder), device="cpu")
    text = {"source": "sample", "seq_len": 32, "windows": 3}
    expected = perplexity(here.model, here.tokenizer, **text).nll
    written = generate(here.model, here.tokenizer, "A word", max_new_tokens=4).text
    with virtual_device(kind):
        there = pruning.load(str(model_folder), device=kind)
        assert perplexity(there.model, there.tokenizer, **text).nll == pytest.approx(expected)
        again = generate(there.model, there.tokenizer, "A word", max_new_tokens=4)
        speed = tokens_per_second(there.model, prompt_tokens=8, new_tokens=2, repeats=1)
    assert again.text == written and again.new_tokens <= 4
    assert speed.prefill > 0 and speed.decode > 0
