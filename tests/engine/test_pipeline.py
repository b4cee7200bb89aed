"""The windows that recovery sees."""

from __future__ import annotations

import torch

from pruning.pipeline import recovery_windows, windows_for
from pruning.recipe import Recipe


def recipe(share: float, samples: int | None = None) -> Recipe:
    return Recipe.parse(
        {
            "calibration": {"source": "random", "samples": 8, "seq_len": 8},
            "recovery": {"written": share, "samples": samples},
            "seed": 3,
        }
    )


def test_without_written_windows_recovery_sees_the_measured_windows(tiny_model):
    loaded = tiny_model("gpt2")
    assert torch.equal(
        recovery_windows(loaded, recipe(0.0)).ids, windows_for(loaded, recipe(0.0)).ids
    )
    assert recovery_windows(loaded, recipe(0.0, samples=5)).ids.shape == (5, 8)


def test_written_windows_are_added_and_spread(tiny_model, model_folder):
    import pruning

    loaded = pruning.load(str(model_folder), device="cpu")
    plain = recipe(0.5).changed(calibration={"source": "sample"})
    text, mixed = windows_for(loaded, plain).ids, recovery_windows(loaded, plain).ids
    assert mixed.shape == (12, 8)
    from_text = [any(torch.equal(row, window) for window in text) for row in mixed]
    assert sum(from_text) == 8
    # neither half holds all of one kind: the held-out windows must know both
    assert 2 <= sum(from_text[:6]) <= 5
    assert torch.equal(mixed, recovery_windows(loaded, plain).ids)
