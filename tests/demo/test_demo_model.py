"""The embedded real model, end to end: convert, load, measure, prune, evaluate, save, reload.

``HEADROOM_WIKITEXT`` may name a folder with ``wiki.train.raw.slice`` and ``wiki.test.raw``;
then the published setting is checked on them, otherwise on the sample text.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch

import pruning
from pruning.artifacts import shipped
from pruning.artifacts.recipe import Recipe
from pruning.cli.main import main
from pruning.pipeline import measuring_passes, prune
from pruning.presets import with_preset
from tests.helpers import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo():
    """The embedded model in float32, from the user's cache."""
    return pruning.load("demo", dtype="float32", device="cpu")


def setting() -> tuple[dict, str]:
    """Calibration and evaluation text: as published, or few windows of the sample text."""
    folder = os.environ.get("HEADROOM_WIKITEXT")
    if folder:
        calibration = {"source": f"{folder}/wiki.train.raw.slice", "samples": 32, "seq_len": 128}
        return calibration, f"{folder}/wiki.test.raw"
    return {"source": "sample", "samples": 8, "seq_len": 128}, "sample"


def test_demo_is_the_real_model(demo):
    shape = demo.adapter.model_shape(demo.model)
    assert (len(shape.blocks), shape.hidden_size, shape.vocab_size) == (30, 576, 49152)
    assert sum(p.numel() for p in demo.model.parameters()) == 134_515_008
    said = pruning.generate(
        demo.model, demo.tokenizer, "The capital of France is", max_new_tokens=4
    )
    assert "Paris" in said.text


def test_committed_measurement_belongs_to_the_demo(demo):
    committed = pruning.Measurement.read(ROOT / "assets" / "demo-measurement.json.gz")
    assert replace(committed.shape, dtype=demo.dtype) == demo.shape
    assert (committed.model, committed.corpus, committed.dtype) == ("demo", "sample", "float32")
    assert len(committed.blocks) == 30 and committed.blocks[0].divergence.shape == (9, 9)


def test_the_committed_measurement_is_used_for_its_text(demo):
    """The weights in the user's cache are those that were measured, and no pass is left to make."""
    recipe = with_preset(Recipe.parse({"ffn": {"ratio": 0.2}}), "balanced")
    assert shipped.is_measured(recipe)
    (only,) = measuring_passes(demo, recipe)
    assert only.is_known and only.extended(None) is shipped.demo_measurement()


def test_prune_recovers_and_reloads(demo, tmp_path):
    """A fifth of the block parameters: refit beats no recovery, and the folder reloads."""
    calibration, text = setting()
    base = {"calibration": calibration, "ffn": {"ratio": 0.267}}
    measurement = pruning.measure_model(demo, Recipe.parse(base))
    found = {}
    for method in ("none", "refit"):
        recipe = Recipe.parse({**base, "recovery": {"method": method}})
        run = prune(demo, recipe, measurement=measurement)
        found[method] = pruning.perplexity(
            run.pruned.model, demo.tokenizer, text, windows=12
        ).perplexity
    dense = pruning.perplexity(demo.model, demo.tokenizer, text, windows=12).perplexity
    assert run.report.kept_block_parameters == pytest.approx(0.80, abs=0.005)
    assert dense < found["refit"] < found["none"]
    folder = pruning.save(run, tmp_path / "small")
    again = pruning.load(str(folder), device="cpu")
    ids = torch.arange(64).reshape(1, 64)
    with torch.inference_mode():
        assert torch.equal(run.pruned.model(ids).logits, again.model(ids).logits)


def test_command_line_on_the_demo(capsys):
    """``evaluate --json`` on the demo: one JSON object with the contract's names."""
    size = ["--seq-len", "64", "--windows", "2"]
    assert main(["evaluate", "demo", "--text", "sample", *size, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"perplexity", "nll", "tokens", "windows", "seq_len", "dtype", "seconds"} <= set(result)
    assert (result["windows"], result["tokens"], result["seq_len"]) == (2, 126, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_gpu_agrees_with_cpu(demo):
    """The same perplexity on both devices to a tenth of a per cent."""
    there = pruning.load("demo", dtype="float32", device="cuda")
    values = [
        pruning.perplexity(m.model, m.tokenizer, "sample", windows=4).perplexity
        for m in (demo, there)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-3)
