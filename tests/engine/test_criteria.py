"""Scores against the formulas of method section 3, written out again."""

from __future__ import annotations

import families
import numpy as np
import pytest
import synthetic
import torch

from pruning.criteria import unit_scores
from pruning.pipeline import measure_model, windows_for


@pytest.mark.parametrize("name", ["second_moment", "second_moment_exact"])
def test_a_heads_score_is_the_sum_over_its_channels(name):
    measured = synthetic.measurement()
    shape, statistics = measured.shape.blocks[0].attention, measured.blocks[0].attention.statistics
    scores = unit_scores(name, statistics, shape)
    for head in range(shape.units):
        own = range(head * synthetic.WIDTH, (head + 1) * synthetic.WIDTH)
        expected = sum(
            0.5 * float(statistics["level2_sq"][c]) * float(statistics["input_second_moment"][c])
            for c in own
        )
        assert scores[head] == pytest.approx(expected, rel=1e-6)


def test_a_gated_channels_score_is_the_product_of_its_two_modules():
    measured = synthetic.measurement()
    shape, s = measured.shape.blocks[0].ffn, measured.blocks[0].ffn.statistics
    scores = unit_scores("second_moment", s, shape)
    for c in range(shape.units):
        half = 0.5 * float(s["level2_sq"][c])
        up, gate = float(s["up_second_moment"][c]), float(s["gate_second_moment"][c])
        assert scores[c] == pytest.approx((half * up) * (half * gate), rel=1e-6)


def test_a_plain_channels_score_has_one_factor():
    s = dict(synthetic.measurement().blocks[0].ffn.statistics)
    plain = {name: values for name, values in s.items() if not name.startswith("gate")}
    scores = unit_scores("second_moment", plain, synthetic.shape().blocks[0].ffn)
    np.testing.assert_allclose(scores, 0.5 * s["level2_sq"] * s["up_second_moment"], rtol=1e-6)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_exact_score_is_the_mean_energy_of_the_channels_contribution(family, tiny_model):
    """½ E‖h_j D_:j‖²: half the mean squared length of what channel j adds to the output."""
    tiny, recipe = tiny_model(family), families.recipe()
    measured = measure_model(tiny, recipe)
    block = tiny.adapter.blocks(tiny.model)[2]
    layer = tiny.adapter.ffn(block).level2
    with families.seen({"level2": layer}) as found:
        families.logits(tiny.model, windows_for(tiny, recipe).ids)
    x = found["level2"][0].reshape(-1, found["level2"][0].shape[-1])
    weight = layer.weight if family == "gpt2" else layer.weight.T
    expected = [
        0.5 * torch.outer(x[:, j], weight[j]).square().sum(1).mean().item()
        for j in range(x.shape[1])
    ]
    shape = measured.shape.blocks[2].ffn
    scores = unit_scores("second_moment_exact", measured.blocks[2].ffn.statistics, shape)
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
