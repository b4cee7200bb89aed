"""Sums that are taken otherwise on a card than on the CPU."""

from __future__ import annotations

import pytest
import torch

from pruning.measure import js_divergence
from pruning.measure.js_divergence import DivergenceSum
from pruning.measure.moments import MagnitudeSum
from tests.helpers.on_device import KINDS
from tests.helpers.virtual_device import virtual_device


@pytest.mark.parametrize("entries", [1, 64, 2**26])
@pytest.mark.parametrize("heads", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_divergence_of_all_pairs_at_once(kind, heads, entries, monkeypatch):
    monkeypatch.setattr(js_divergence, "_ENTRIES", {True: 2**18, False: entries})
    scores = torch.randn(3, heads, 7, 7, generator=torch.Generator().manual_seed(0))
    above = torch.ones(7, 7, dtype=torch.bool).triu(1)
    patterns = scores.masked_fill(above, -torch.inf).softmax(-1)
    here = DivergenceSum(heads)
    here.add(patterns)
    with virtual_device(kind):
        there = DivergenceSum(heads)
        for part in patterns.to(kind).split(2):
            there.add(part)
        got = there.result()
    torch.testing.assert_close(got, here.result(), atol=1e-6, rtol=1e-5)
    assert heads == 1 or got.max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_quantiles_from_a_histogram(kind):
    values = torch.randn(100, 33, generator=torch.Generator().manual_seed(1))
    here = MagnitudeSum()
    here.add(values)
    with virtual_device(kind):
        there = MagnitudeSum()
        there.add(values.to(kind))
        got = there.quantiles()
    assert got == here.quantiles() and got[-1] > 2.0
