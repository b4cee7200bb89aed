"""The windows that recovery sees."""

from __future__ import annotations

import pytest
import torch

from pruning.artifacts.recipe import Recipe
from pruning.measure.windows import recovery_windows, windows_for
from pruning.pipeline import prune
from pruning.utils.errors import Cancelled
from tests.helpers import families


def recipe(copies: int, samples: int | None = None, method: str = "refit") -> Recipe:
    return Recipe.parse(
        {
            "calibration": {"source": "random", "samples": 8, "seq_len": 12},
            "recovery": {"copies": copies, "samples": samples, "method": method},
            "seed": 3,
        }
    )


def test_without_copies_recovery_sees_the_measured_windows(tiny_model):
    loaded = tiny_model("gpt2")
    measured = windows_for(loaded, recipe(0))
    assert torch.equal(recovery_windows(loaded, recipe(0)).ids, measured.ids)
    assert recovery_windows(loaded, recipe(0, samples=5)).ids.shape == (5, 12)
    # nothing is fitted, so nothing is written
    assert torch.equal(recovery_windows(loaded, recipe(2, method="none")).ids, measured.ids)


def test_copies_follow_their_window_and_share_about_half_of_it(tiny_model):
    loaded = tiny_model("gpt2")
    text, found = windows_for(loaded, recipe(6)), recovery_windows(loaded, recipe(6))
    families = found.ids.reshape(8, 7, 12)
    assert found.group == 7
    assert torch.equal(families[:, 0], text.ids)
    copies, originals = families[:, 1:], text.ids[:, None]
    assert torch.equal(copies[..., 0], originals[..., 0].expand(8, 6))
    same = (copies[..., 1:] == originals[..., 1:]).float().mean().item()
    # a drawn token may happen to be the same one
    assert 0.4 < same < 0.65
    assert not torch.equal(copies[:, 0], copies[:, 1])
    assert torch.equal(found.ids, recovery_windows(loaded, recipe(6)).ids)


def test_copies_by_themselves_make_enough_windows(tiny_model):
    loaded = tiny_model("gpt2")
    for samples, copies in ((64, 1), (16, 7), (256, 0), (700, 0)):
        found = recovery_windows(loaded, recipe("auto", samples=samples))
        assert (found.group, len(found.ids)) == (1 + copies, samples * (1 + copies))


def test_rewriting_can_be_cancelled(tiny_model):
    with pytest.raises(Cancelled):
        recovery_windows(tiny_model("gpt2"), recipe(1), should_cancel=lambda: True)


def test_a_pruned_model_can_be_pruned_again_in_memory(tiny_model):
    """It is not taken for the dense model, whose measurement is in the cache."""
    dense, cut = tiny_model("llama_grouped"), {"heads__ratio": 0.34, "ffn__ratio": 0.3}
    first = prune(dense, families.recipe(**cut))
    other = prune(dense, families.recipe(**cut, recovery__method="none"))
    assert len({dense.identity, first.pruned.identity, other.pruned.identity}) == 3
    assert prune(dense, families.recipe(**cut)).pruned.identity == first.pruned.identity
    assert prune(dense, families.recipe()).pruned.identity == dense.identity  # nothing went
    second = prune(first.pruned, families.recipe(ffn__ratio=0.3))
    parameters = [run.report.after.parameters for run in (first, second)]
    assert parameters[0] > parameters[1] == sum(p.numel() for p in second.pruned.model.parameters())
    assert second.report.before == first.report.after
