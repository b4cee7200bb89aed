"""Refit errors of every prefix from one factor."""

from __future__ import annotations

import families
import numpy as np
import pytest
import torch

from pruning.measure import measure
from pruning.measure.curves import prefix_errors, with_curves
from pruning.measurement import CURVE_POINTS


def test_every_prefix_is_a_least_squares_fit():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 9, dtype=torch.float64, generator=generator)
    x = x @ torch.randn(9, 9, dtype=torch.float64, generator=generator)
    weight = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    order = torch.randperm(9, generator=generator)
    found = prefix_errors(x.T @ x, weight, order, len(x))
    target = x @ weight
    for k in range(10):
        kept = x[:, order[:k]]
        fit = kept @ torch.linalg.lstsq(kept, target).solution if k else torch.zeros_like(target)
        error = (target - fit).square().sum() / len(x) * (len(x) + k) / (len(x) - k)
        assert found[k].item() == pytest.approx(error.item(), rel=1e-2, abs=1e-9)


def test_few_tokens_never_promise_more_than_no_fit():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 8, dtype=torch.float64, generator=generator)
    weight = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    found = prefix_errors(x.T @ x, weight, torch.arange(8), len(x))
    for k in range(9):
        unfitted = (x[:, k:] @ weight[k:]).square().sum().item() / len(x)
        assert 0.0 <= found[k].item() <= unfitted + 1e-9
    dead = prefix_errors(torch.zeros(8, 8, dtype=torch.float64), weight, torch.arange(8), 6)
    assert torch.equal(dead, torch.zeros(9, dtype=torch.float64))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_curves_fall_to_zero_and_have_their_lengths(tiny_model, family):
    loaded = tiny_model(family)
    windows = families.windows(loaded)
    before = [p.clone() for p in loaded.model.parameters()]
    measurement = with_curves(measure(loaded.model, windows, name="tiny"), loaded.model, windows)
    for size, block in zip(measurement.shape.blocks, measurement.blocks, strict=True):
        lengths = {
            "attention": {"refit_error": size.attention.units + 1},
            "ffn": {"refit_error": CURVE_POINTS + 1},
        }
        if size.attention.units_per_group > 1:
            lengths["attention"]["query_refit_error"] = size.attention.units_per_group + 1
            lengths["attention"]["kv_group_refit_error"] = size.attention.groups + 1
        for kind, names in lengths.items():
            for name, length in names.items():
                curve = block.module(kind).statistics[name]
                assert curve.shape == (length,)
                assert curve[0] > 0 and curve[-1] == pytest.approx(0.0, abs=1e-6 * float(curve[0]))
                assert np.isfinite(curve).all() and (curve >= 0).all()
                assert curve[0] == curve.max()
    assert all(torch.equal(a, b) for a, b in zip(before, loaded.model.parameters(), strict=True))
