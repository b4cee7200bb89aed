"""What is counted and measured, against :mod:`plain`."""

from __future__ import annotations

import numpy as np
import pytest

from pruning.criteria import unit_scores
from pruning.evaluate.perplexity import perplexity
from pruning.measure.windows import gradient_windows, windows_for
from pruning.pipeline import measure_model, prune
from tests.helpers import families
from tests.reference import plain

FAMILIES = ("llama_grouped", "llama_biased", "gpt2")
KINDS = ("attention", "ffn")


def close(found, wanted, tolerance=1e-6):
    """Within ``tolerance`` of the largest value."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.fixture(params=FAMILIES, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def measured(tiny):
    recipe = families.recipe(calibration__gradient_samples=4, calibration__gradient_seq_len=12)
    return recipe, measure_model(tiny, recipe, gradients=True)


def test_divergences(tiny, measured):
    recipe, found = measured
    wanted = plain.divergences(families.build(*_name(tiny)), windows_for(tiny, recipe).ids)
    for block, table in zip(found.blocks, wanted, strict=True):
        np.testing.assert_allclose(block.divergence, table, rtol=0, atol=1e-6)
        assert np.allclose(table, table.T) and not table.diagonal().any()


def test_criteria_of_the_forward_pass(tiny, measured):
    recipe, found = measured
    modules = plain.observed(tiny.model, windows_for(tiny, recipe).ids)
    for index, block in enumerate(modules):
        for kind in KINDS:
            statistics = found.blocks[index].module(kind).statistics
            shape = found.shape.blocks[index].module(kind)
            for name, wanted in plain.scores(block[kind]).items():
                close(unit_scores(name, statistics, shape), wanted)


def test_criteria_of_the_gradient_pass(tiny, measured):
    recipe, found = measured
    wanted = plain.gradient_scores(tiny.model, gradient_windows(tiny, recipe).ids)
    for index, block in enumerate(wanted):
        for kind in KINDS:
            statistics = found.blocks[index].module(kind).statistics
            shape = found.shape.blocks[index].module(kind)
            for name, scores in block[kind].items():
                close(unit_scores(name, statistics, shape), scores)


def test_perplexity(model_folder, tmp_path):
    import pruning

    loaded = pruning.load(str(model_folder), dtype="float32", device="cpu")
    text = tmp_path / "text.txt"
    text.write_text(families.SAMPLE.read_text()[:4000])
    found = perplexity(loaded.model, loaded.tokenizer, str(text), seq_len=16, windows=5)
    ids = loaded.tokenizer(text.read_text(), return_tensors="pt")["input_ids"][0]
    wanted = plain.perplexity(loaded.model, ids[: 5 * 16].reshape(5, 16))
    assert found.perplexity == pytest.approx(wanted, rel=1e-6)


def test_counts_before_and_after(tiny):
    recipe = families.recipe(heads__ratio=0.4, ffn__ratio=0.3, recovery__intercept="add")
    run = prune(tiny, recipe)
    for model, counted in ((tiny.model, run.report.before), (run.pruned.model, run.report.after)):
        assert counted.parameters == plain.parameters(model)
        assert counted.flops_per_token == plain.matrix_flops(model, recipe.calibration.seq_len)
        assert counted.bytes == 4 * plain.parameters(model)


def _name(tiny) -> tuple[str, int]:
    family, seed, _ = tiny.source.rsplit("-", 2)
    return family, int(seed)
