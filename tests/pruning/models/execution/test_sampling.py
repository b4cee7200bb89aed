"""Sampling tokens: by their probabilities, by the seed, and never what has none."""

from __future__ import annotations

import pytest
import torch

from pruning.models.execution.sampling import sample
from pruning.utils.errors import Unsupported

PROBS = torch.tensor([[0.0, 0.5, 0.0, 0.3, 0.2, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_tokens_come_as_often_as_their_probabilities_say():
    draws = 40_000
    found = sample(PROBS, draws, _generator())
    assert found.shape == (2, draws) and found.dtype == torch.long
    for row, probs in zip(found, PROBS, strict=True):
        shares = torch.bincount(row, minlength=len(probs)) / draws
        assert torch.equal(shares > 0, probs > 0)
        # five standard errors
        torch.testing.assert_close(shares, probs, rtol=0, atol=5 * (0.25 / draws) ** 0.5)


def test_a_seed_means_the_same_twice_and_another_seed_something_else():
    probs = torch.full((4, 1000), 1e-3)
    first, again, other = (sample(probs, 8, _generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_draws_of_a_row_do_not_follow_each_other():
    """Two draws of one token each are alike as often as chance has it."""
    probs = torch.full((20_000, 4), 0.25)
    first, second = sample(probs, 2, _generator()).T
    alike = (first == second).float().mean().item()
    assert abs(alike - 0.25) < 5 * (0.25 * 0.75 / 20_000) ** 0.5


def test_probabilities_that_are_not_numbers_are_refused_in_a_sentence():
    probs = PROBS.clone()
    probs[1, 2] = torch.nan
    with pytest.raises(Unsupported, match="outputs are not numbers; load it"):
        sample(probs, 1, _generator())
