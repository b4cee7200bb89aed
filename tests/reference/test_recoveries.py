"""Each recovery, with the target of the paper and with what the stream has lost, against
:mod:`recovered`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.measure.windows import recovery_windows
from pruning.surgery.apply import apply
from tests.helpers import families, hand_plans
from tests.reference import plain
from tests.reference.recovered import recovered

CHANNELS = {0: range(3, 20), 2: range(0, 30, 3)}
HEADS = {1: (1, 3), 2: (0, 4)}
CASES = [
    ("none", "residual", False),
    ("bias", "residual", False),
    ("refit", "residual", False),
    ("refit", "dense", True),
    ("reconstruct", "dense", False),
    ("reconstruct", "residual", True),
    ("full", "residual", False),
]


@pytest.mark.parametrize(("method", "target", "add_bias"), CASES)
@pytest.mark.parametrize("family", ["llama_grouped", "gpt2"])
def test_a_recovery(tiny_model, family, method, target, add_bias):
    tiny = tiny_model(family)
    recipe = families.recipe(
        calibration__samples=40,
        recovery__method=method,
        recovery__target=target,
        recovery__damping=0.1,
        recovery__intercept="add" if add_bias else "auto",
        recovery__scope="pruned",
        recovery__rescore=False,
    )
    shape = tiny.adapter.model_shape(tiny.model)
    plan = hand_plans.plan_by_hand(shape, HEADS, CHANNELS)
    windows = recovery_windows(tiny, recipe)
    done = apply(tiny.model, plan, recipe, windows)
    width = plain.heads_of(tiny.model.config)[2]
    removed = {(b, "ffn"): list(channels) for b, channels in CHANNELS.items()}
    for block, heads in HEADS.items():
        removed[block, "attention"] = [h * width + c for h in heads for c in range(width)]
    wanted = recovered(tiny.model, windows.ids, removed, method, target=target, add_bias=add_bias)
    for block, kind in removed:
        layer = plain.layers_of(wanted, block)[kind][1]
        found = plain.layers_of(done.model, block)[kind][1]
        kept = list(range(plain.matrix(layer).shape[1]))
        kept = [c for c in kept if c not in set(removed[block, kind])]
        _close(plain.matrix(found), plain.matrix(layer)[:, kept], 1e-4)
        assert (found.bias is None) == (layer.bias is None)
        if found.bias is not None:
            _close(found.bias, layer.bias, 1e-4)
    ids = windows.ids[:4]
    with torch.no_grad():
        _close(done.model(ids).logits, wanted(ids).logits, 1e-5)


def _close(found, wanted, tolerance):
    """Weights are kept, and the stream is carried, in float32: directions in which the text hardly
    moves take up its noise, which the outputs do not show."""
    found, wanted = plain.numpy64(found), plain.numpy64(wanted)
    scale = max(np.abs(wanted).max(), 0.1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)
