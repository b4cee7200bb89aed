"""Loss curves: gradients token by token, a fit on one half, errors on the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pruning.artifacts.measurement import CURVE_POINTS
from pruning.measure import measure
from pruning.measure.curve_fit import CURVE_DAMPINGS
from pruning.measure.loss_curves import with_loss_curves
from pruning.measure.output_gradients import output_gradients
from pruning.models.execution.sampling import sample
from tests.helpers import families


@pytest.mark.parametrize("family", families.FAMILIES)
def test_gradients_are_those_of_autograd_through_the_whole_model(tiny_model, family):
    loaded = tiny_model(family)
    model, adapter, ids = loaded.model, loaded.adapter, families.token_ids()
    found = output_gradients(model, adapter, ids, seed=3)
    logits = families.logits(model, ids)
    generator = torch.Generator().manual_seed(3)
    tokens = sample(logits.softmax(-1).flatten(0, 1), 1, generator)[:, 0]
    outputs = {}

    def keep(place):
        def hook(_layer, _inputs, output):
            output = output.requires_grad_() if not output.requires_grad else output
            outputs[place] = output
            return output

        return hook

    handles = [
        adapter.module(block, kind).out_proj.register_forward_hook(keep((index, kind)))
        for index, block in enumerate(adapter.blocks(model))
        for kind in ("attention", "ffn")
    ]
    with torch.enable_grad():
        again = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(again.flatten(0, 1), tokens, reduction="sum")
    for handle in handles:
        handle.remove()
    for place, wanted in zip(
        outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True
    ):
        # stored as bfloat16
        torch.testing.assert_close(found[place].float(), wanted, rtol=2e-2, atol=1e-3)
    assert all(not p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("family", families.FAMILIES)
def test_curves_fall_to_zero_and_have_their_lengths(tiny_model, family):
    loaded = tiny_model(family)
    windows, before = families.windows(loaded), families.snapshot(loaded.model)
    measurement = with_loss_curves(
        measure(loaded.model, windows, name="tiny"), loaded.model, windows
    )
    for size, block in zip(measurement.shape.blocks, measurement.blocks, strict=True):
        lengths = {
            "attention": {"expected_loss": size.attention.units + 1},
            "ffn": {"expected_loss": CURVE_POINTS + 1},
        }
        if size.attention.units_per_group > 1:
            lengths["attention"]["query_expected_loss"] = size.attention.units_per_group + 1
            lengths["attention"]["kv_group_expected_loss"] = size.attention.groups + 1
        for kind, names in lengths.items():
            for name, length in names.items():
                curve = block.module(kind).statistics[name]
                assert curve.shape == (length,)
                assert np.isfinite(curve).all()
                assert curve[0] > 0.0 == curve[-1]
                assert (np.diff(curve) <= 0.0).all()
    assert families.unchanged(loaded.model, before)


def test_the_expected_loss_is_near_the_real_divergence(tiny_model):
    """One module loses a little, without a repair: the estimate is of the second order."""
    loaded = tiny_model("llama_grouped")
    windows = families.windows(loaded, samples=64)
    ids = windows.ids[1::2][:32]
    gradients = output_gradients(loaded.model, loaded.adapter, ids, seed=0)
    layer = loaded.adapter.ffn(loaded.adapter.blocks(loaded.model)[1]).out_proj
    dense = families.logits(loaded.model, ids).log_softmax(-1)
    with families.seen({"out_proj": layer}) as found:
        families.logits(loaded.model, ids)
    x = found["out_proj"][0]
    change = 0.1 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    delta = x @ (layer.weight * change).T
    expected = 0.5 * (delta * gradients[1, "ffn"].float()).sum(-1).square().mean()
    before = layer.weight.data
    layer.weight.data = before * (1 + change)
    try:
        cut = families.logits(loaded.model, ids).log_softmax(-1)
    finally:
        layer.weight.data = before
    # one drawn token per place: the estimate itself is noisy; later tokens see the error too
    real = (dense.exp() * (dense - cut)).sum(-1).mean()
    assert 0.4 * real < expected < 2.5 * real


@pytest.mark.parametrize(("texts", "copies", "probed"), [(80, 0, 40), (8, 9, 32), (4, 3, 8)])
def test_all_of_the_odd_texts_are_probed_and_few_copies(
    tiny_model, monkeypatch, texts, copies, probed
):
    loaded = tiny_model("llama_grouped")
    windows = families.windows(loaded, samples=texts * (1 + copies), seq_len=4)
    windows = replace(windows, group=1 + copies)
    measurement, seen = measure(loaded.model, windows, name="tiny"), []

    def gradients(model, adapter, ids, *rest, **more):
        seen.append(ids)
        return output_gradients(model, adapter, ids, *rest, **more)

    monkeypatch.setattr("pruning.measure.loss_curves.output_gradients", gradients)
    with_loss_curves(measurement, loaded.model, windows)
    assert len(seen[0]) == probed
    odd = windows.ids.unflatten(0, (texts, -1))[1::2, 0]
    assert torch.equal(seen[0][: len(odd)], odd)


@pytest.mark.parametrize("family", ["llama_grouped", "mixtral"])
def test_dampings_chosen_on_some_probes_are_about_the_best_of_all(tiny_model, monkeypatch, family):
    loaded = tiny_model(family)
    windows = families.windows(loaded, samples=32)
    measurement = measure(loaded.model, windows, name="tiny")
    found = []
    for choosing in (32 * windows.ids.shape[1], 100, 0):
        monkeypatch.setattr("pruning.measure.curve_fit.CHOOSING", choosing)
        blocks = with_loss_curves(measurement, loaded.model, windows).blocks
        found.append(np.stack([b.ffn.statistics["expected_loss"] for b in blocks]))
    exact, chosen, none = found
    # with nothing to choose by there is no repair: what is chosen is worth most of the best
    assert (chosen >= exact - 1e-12).all()
    assert chosen.sum() - exact.sum() < 0.5 * (none.sum() - exact.sum())


def test_the_curve_is_that_of_a_fit_at_every_width(tiny_model):
    """Every width and damping solved on its own, in float64, from the inputs of the real model."""
    loaded = tiny_model("llama_grouped")
    windows = families.windows(loaded, samples=8)
    measurement = with_loss_curves(
        measure(loaded.model, windows, name="tiny"), loaded.model, windows
    )
    fit, probe = windows.ids[::2], windows.ids[1::2]
    gradients = output_gradients(loaded.model, loaded.adapter, probe, seed=windows.seed)
    layer = loaded.adapter.ffn(loaded.adapter.blocks(loaded.model)[1]).out_proj
    weight = layer.weight.data.T.double()
    inputs = []
    for ids in (fit, probe):
        with families.seen({"out_proj": layer}) as found:
            families.logits(loaded.model, ids)
        inputs.append(found["out_proj"][0].flatten(0, 1).double())
    x, probed = inputs
    g = gradients[1, "ffn"].flatten(0, 1).double()
    gram = x.T @ x
    best = (gram.diagonal() * weight.square().sum(1)).argsort(descending=True)
    wanted = []
    for k in range(CURVE_POINTS + 1):
        count = round(len(best) * k / CURVE_POINTS)
        kept, gone = best[:count], best[count:]
        lost, tried = probed[:, gone] @ weight[gone], []
        for damping in CURVE_DAMPINGS:
            ridge = damping * gram.diagonal().mean() * torch.eye(count)
            repair = torch.linalg.solve(gram[kept][:, kept] + ridge, gram[kept][:, gone])
            tried.append(probed[:, kept] @ repair @ weight[gone] - lost)
        losses = [0.5 * (delta * g).sum(1).square().mean().item() for delta in (-lost, *tried)]
        wanted.append(min(losses))
    wanted = np.maximum.accumulate(wanted[::-1])[::-1]
    found = measurement.blocks[1].ffn.statistics["expected_loss"]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-12)
