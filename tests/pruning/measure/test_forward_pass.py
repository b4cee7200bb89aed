"""Every measured statistic against a direct computation on the whole model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.measure import measure
from pruning.measure.forward_pass import weight_statistics
from pruning.measure.moments import LEVELS, MagnitudeSum, MomentSum
from pruning.utils.errors import Cancelled
from tests.helpers import families

BLOCK = 1
BIN = 2 ** (1 / 128)  # bfloat16 numbers are no farther apart


@pytest.fixture(params=families.FAMILIES, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def windows(tiny):
    return families.windows(tiny, samples=9, seq_len=16)


@pytest.fixture(scope="module")
def measured(tiny, windows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pruning.models.execution.blockwise.TOKENS_PER_BATCH", 34
        )  # two windows, the last one alone
        return measure(tiny.model, windows, name="tiny")


@pytest.fixture(scope="module")
def collected(tiny, windows):
    """Inputs and outputs of one block's layers during a plain forward pass, float64."""
    block = tiny.adapter.blocks(tiny.model)[BLOCK]
    layers = {"block": block}
    for kind in ("attention", "ffn"):
        module = tiny.adapter.module(block, kind)
        layers[f"{kind} out_proj"] = module.out_proj
        for name, projection in module.in_proj.items():
            layers[f"{kind} {name}"] = projection.layer
    with families.seen(layers) as found:
        families.logits(tiny.model, windows.ids)
    return {
        name: tuple(t.double().reshape(-1, t.shape[-1]) for t in pair)
        for name, pair in found.items()
    }


@pytest.mark.parametrize("kind", ["attention", "ffn"])
def test_moments_of_level_2_inputs(measured, collected, kind):
    statistics = measured.blocks[BLOCK].module(kind).statistics
    x = collected[f"{kind} out_proj"][0]
    assert x.shape[0] == 9 * 16
    _close(statistics["input_mean"], x.mean(0))
    _close(statistics["input_second_moment"], x.square().mean(0))
    _close(statistics["input_variance"], x.var(0, unbiased=True))


@pytest.mark.parametrize("kind", ["attention", "ffn"])
def test_second_moments_of_level_1_without_bias(tiny, measured, collected, kind):
    statistics = measured.blocks[BLOCK].module(kind).statistics
    module = tiny.adapter.module(tiny.adapter.blocks(tiny.model)[BLOCK], kind)
    for name, projection in module.in_proj.items():
        x = collected[f"{kind} {name}"][0]
        output = x @ projection.weight().double().T
        _close(statistics[f"{name}_second_moment"], output.square().mean(0))


@pytest.mark.parametrize("kind", ["attention", "ffn"])
def test_weight_norms(tiny, measured, kind):
    module = tiny.adapter.module(tiny.adapter.blocks(tiny.model)[BLOCK], kind)
    statistics = measured.blocks[BLOCK].module(kind).statistics
    weights = {"level2": families.matrix(module.out_proj).T}
    if tiny.model.config.model_type == "gpt2" and kind == "attention":
        third = families.matrix(module.in_proj["query"].layer).chunk(3)
        weights |= dict(zip(("query", "key", "value"), third, strict=True))
    else:
        weights |= {name: families.matrix(p.layer) for name, p in module.in_proj.items()}
    for name, rows in weights.items():
        _close(statistics[f"{name}_sq"], rows.square().sum(1))
        _close(statistics[f"{name}_abs"], rows.abs().sum(1))
    assert weight_statistics(module).keys() <= statistics.keys()


def test_lengths_are_those_of_the_documentation(measured):
    """Units times width at out_proj, key and value rows below."""
    block, shape = measured.blocks[BLOCK], measured.shape.blocks[BLOCK]
    attention, ffn = shape.attention, shape.ffn
    width = attention.unit_width
    sizes = {name: len(v) for name, v in block.attention.statistics.items()}
    assert sizes["input_mean"] == sizes["level2_sq"] == attention.units * width
    assert sizes["query_second_moment"] == attention.units * width
    assert sizes["value_second_moment"] == attention.groups * width
    assert {len(v) for v in block.ffn.statistics.values()} == {ffn.units}
    assert all(v.dtype == np.float32 for v in block.ffn.statistics.values())


@pytest.mark.parametrize(
    ("place", "layer", "side"),
    [("residual", "block", 0), ("attention", "attention out_proj", 1), ("ffn", "ffn out_proj", 0)],
)
def test_activation_magnitudes(measured, collected, place, layer, side):
    summary = measured.blocks[BLOCK].activations[place]
    x = collected[layer][side]
    size = x.abs()
    assert summary.mean == pytest.approx(x.mean().item(), rel=1e-4, abs=1e-5)
    assert summary.mean_absolute == pytest.approx(size.mean().item(), rel=1e-4)
    assert summary.rms == pytest.approx(x.square().mean().sqrt().item(), rel=1e-4)
    assert summary.maximum == pytest.approx(size.max().item(), rel=1e-4)
    means = size.mean(0)
    expected = means.topk(8)
    assert list(summary.top_channels) == expected.indices.tolist()
    assert summary.top_values == pytest.approx(expected.values.tolist(), rel=1e-4)
    assert summary.levels == LEVELS
    exact = np.quantile(size.numpy(), LEVELS, method="inverted_cdf")
    ratio = np.asarray(summary.quantiles) / exact
    assert (ratio < BIN).all() and (ratio > 1 / BIN).all()


def test_the_header_says_what_was_measured(tiny, windows, measured):
    assert (measured.samples, measured.seq_len, measured.seed) == (9, 16, 0)
    assert measured.corpus == "random" and measured.corpus_fingerprint == windows.fingerprint
    assert measured.dtype == "float32"
    assert measured.shape == tiny.adapter.model_shape(tiny.model)
    assert len(measured.blocks) == families.BLOCKS


def test_batch_size_does_not_matter(tiny, windows, measured):
    whole = measure(tiny.model, windows, name="tiny")
    for one, other in zip(whole.blocks, measured.blocks, strict=True):
        for kind in ("attention", "ffn"):
            for name, values in one.module(kind).statistics.items():
                _close(other.module(kind).statistics[name], torch.from_numpy(values.copy()))


def test_cancelling_restores_the_attention_kernel(tiny, windows):
    before = tiny.model.config._attn_implementation
    with pytest.raises(Cancelled):
        measure(tiny.model, windows, name="tiny", should_cancel=lambda: True)
    assert tiny.model.config._attn_implementation == before


def test_variance_is_unbiased_and_safe_for_one_token():
    values = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) + 3.0
    moments = MomentSum()
    for part in values.split(7):
        moments.add(part)
    torch.testing.assert_close(moments.variance(), values.double().var(0))
    single = MomentSum()
    single.add(values[:1])
    assert torch.equal(single.variance(), torch.zeros(5, dtype=torch.float64))


def test_a_large_mean_costs_the_variance_nothing():
    values = torch.randn(5000, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values = (values + torch.tensor([0.0, 300.0, -2000.0, 10000.0])).float()
    moments = MomentSum()
    for part in values.split(2048):
        moments.add(part)
    exact = values.double()
    torch.testing.assert_close(moments.variance(), exact.var(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(moments.mean(), exact.mean(0), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(moments.second_moment(), exact.square().mean(0), rtol=1e-6, atol=0)


def test_quantiles_over_many_magnitudes():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(4000, 6, generator=generator) * torch.logspace(-6, 4, 6)
    total = MagnitudeSum()
    for part in values.split(900):
        total.add(part)
    exact = np.quantile(values.abs().numpy(), LEVELS, method="inverted_cdf")
    ratio = np.asarray(total.quantiles()) / exact
    assert (ratio < BIN).all() and (ratio > 1 / BIN).all()


def test_silence_has_quantiles_of_zero():
    total = MagnitudeSum()
    total.add(torch.zeros(3, 4))
    assert set(total.quantiles()) == {0.0} and total.maximum == 0.0


def _close(found: np.ndarray, expected: torch.Tensor):
    np.testing.assert_allclose(found, expected.double().numpy(), rtol=2e-4, atol=1e-6)
