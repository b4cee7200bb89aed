"""Products of activations, massive ones among them, against float64."""

from __future__ import annotations

import pytest
import torch

from pruning.recovery.solvers.gram import gram

TOKENS, CHANNELS = 4096, 192


def _activations(case, seed):
    x = torch.randn(TOKENS, CHANNELS, generator=torch.Generator().manual_seed(seed))
    if case == "channels":
        x[:, [3, 77]] *= 1000.0
        x[:, 5] += 300.0
    elif case == "token":
        x[0] *= 1000.0
        x[1500] *= 300.0
    elif case == "entries":  # one token, a few channels: how massive activations are found
        x[0, [5, 9]] *= 1e4
    return x


def _apart(found, x):
    exact = x.double().T @ x.double()
    size = exact.diagonal().sqrt()
    return ((found - exact).abs() / torch.outer(size, size)).max().item()


@pytest.mark.parametrize("case", ["even", "channels", "token", "entries"])
def test_within_a_millionth_of_float64(case):
    plain = []
    for seed in range(3):
        x = _activations(case, seed)
        found = gram(x.split(2048), CHANNELS, torch.float64, x.device)
        assert found.dtype == torch.float64 and torch.equal(found, found.T)
        assert _apart(found, x) < 1e-6
        plain.append(_apart(sum((part.T @ part).double() for part in x.split(2048)), x))
    # what is guarded against: plain products lose more where something massive comes first
    if case in ("token", "entries"):
        assert max(plain) > 1e-6


@pytest.mark.parametrize("channels", [1, 3, 5, 11])
def test_any_number_of_channels(channels):
    x = torch.randn(40, channels, generator=torch.Generator().manual_seed(channels))
    found = gram([x[:30], x[30:30], x[30:]], channels, torch.float64, x.device)
    torch.testing.assert_close(found, x.double().T @ x.double(), rtol=1e-5, atol=1e-5)


def test_dead_channels_and_no_channels():
    x = torch.zeros(6, 4)
    x[:, 1] = 2.0
    found = gram([x], 4, torch.float64, x.device)
    assert found[1, 1] == 24.0 and found.sum() == 24.0
    assert gram([x[:, :0]], 0, torch.float64, x.device).shape == (0, 0)
