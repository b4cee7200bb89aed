"""Scores against the formulas of method section 3, written out again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.criteria import CRITERIA, unit_scores
from pruning.measure.windows import windows_for
from pruning.pipeline import measure_model
from pruning.planning import make_plan
from tests.helpers import families, synthetic


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
    layer = tiny.adapter.ffn(block).out_proj
    with families.seen({"out_proj": layer}) as found:
        families.logits(tiny.model, windows_for(tiny, recipe).ids)
    x = found["out_proj"][0].reshape(-1, found["out_proj"][0].shape[-1])
    weight = layer.weight if family == "gpt2" else layer.weight.T
    expected = [
        0.5 * torch.outer(x[:, j], weight[j]).square().sum(1).mean().item()
        for j in range(x.shape[1])
    ]
    shape = measured.shape.blocks[2].ffn
    scores = unit_scores("second_moment_exact", measured.blocks[2].ffn.statistics, shape)
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


BLOCK = 1
KINDS = ("attention", "ffn")


def columns_of(module, unit):
    return [unit * module.unit_width + place for place in range(module.unit_width)]


def unit_weights(tiny, kind):
    """Per unit: its level-1 rows [(rows [w, in], how many units share them)] and its level-2
    columns [out, w]; float64, cut by hand out of the layers."""
    block = tiny.adapter.blocks(tiny.model)[BLOCK]
    module = tiny.adapter.module(block, kind)
    out_proj = families.matrix(module.out_proj)
    parts = {}
    for name, projection in module.in_proj.items():
        whole = families.matrix(projection.layer)
        if tiny.model.config.model_type == "gpt2" and kind == "attention":
            whole = whole.chunk(3)[("query", "key", "value").index(name)]
        parts[name] = whole
    found = []
    for unit in range(module.units):
        rows = []
        for name, whole in parts.items():
            sharers = module.units // module.groups if name in ("key", "value") else 1
            start = unit // sharers * module.unit_width
            rows.append((whole[start : start + module.unit_width], sharers, name))
        found.append((rows, out_proj[:, columns_of(module, unit)]))
    return found


def scored(tiny, name, kind, recipe=None):
    measured = measure_model(tiny, recipe or families.recipe())
    shape = measured.shape.blocks[BLOCK].module(kind)
    return unit_scores(name, measured.blocks[BLOCK].module(kind).statistics, shape, block=BLOCK)


def level2_inputs(tiny, kind):
    """What out_proj of one block reads on the calibration windows: [tokens, channels], float64."""
    layer = tiny.adapter.module(tiny.adapter.blocks(tiny.model)[BLOCK], kind).out_proj
    with families.seen({"out_proj": layer}) as found:
        families.logits(tiny.model, windows_for(tiny, families.recipe()).ids)
    return found["out_proj"][0].flatten(0, 1).double()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_weight_sizes_count_both_layers(family, kind, name, power, tiny_model):
    """Rows of a key/value head are shared equally by the query heads that use them."""
    tiny = tiny_model(family)
    expected = [
        sum((w.abs() ** power).sum().item() / sharers for w, sharers, _ in rows)
        + (columns.abs() ** power).sum().item()
        for rows, columns in unit_weights(tiny, kind)
    ]
    np.testing.assert_allclose(scored(tiny, name, kind), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_wanda_sp_is_the_column_sum_of_wandas_metric(family, kind, tiny_model):
    tiny = tiny_model(family)
    x = level2_inputs(tiny, kind)
    module = tiny.adapter.module(tiny.adapter.blocks(tiny.model)[BLOCK], kind)
    metric = families.matrix(module.out_proj).abs() * x.norm(dim=0) / len(x) ** 0.5
    expected = [metric[:, columns_of(module, unit)].sum().item() for unit in range(module.units)]
    np.testing.assert_allclose(scored(tiny, "wanda_sp", kind), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_flap_is_what_replacing_a_unit_by_its_mean_loses(family, kind, tiny_model):
    """``Σ_t ‖B_:j (h_tj - mean h_j)‖² / (n - 1)``, channel by channel; squared in attention."""
    tiny = tiny_model(family)
    x = level2_inputs(tiny, kind)
    module = tiny.adapter.module(tiny.adapter.blocks(tiny.model)[BLOCK], kind)
    out_proj = families.matrix(module.out_proj)
    lost = [
        torch.outer(x[:, j] - x[:, j].mean(), out_proj[:, j]).square().sum().item() / (len(x) - 1)
        for j in range(x.shape[1])
    ]
    power = 2 if kind == "attention" else 1
    expected = [
        sum(lost[j] ** power for j in columns_of(module, unit)) for unit in range(module.units)
    ]
    np.testing.assert_allclose(scored(tiny, "flap", kind), expected, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_identity_is_the_second_moment_of_white_noise(family, kind, tiny_model):
    """With Σ = I, ``A_jᵀ Σ A_j`` is ``‖A_j‖²``; attention reads through its values."""
    tiny = tiny_model(family)
    expected = []
    for rows, columns in unit_weights(tiny, kind):
        channels = 0.5 * columns.square().sum(0)
        branches = [w for w, _, name in rows if kind == "ffn" or name == "value"]
        moments = [w.square().sum(1) for w in branches]
        product = channels * moments[0]
        for other in moments[1:]:
            product = product * channels * other
        expected.append(product.sum().item())
    np.testing.assert_allclose(scored(tiny, "identity", kind), expected, rtol=1e-5)


def test_random_follows_seed_block_and_module_only():
    measured = synthetic.measurement(heads=12, groups=12, channels=12)
    shape = measured.shape.blocks[0]

    def draw(kind="ffn", source=measured, **place):
        statistics = source.blocks[0].module(kind).statistics
        return unit_scores("random", statistics, shape.module(kind), **place).tolist()

    assert draw() == draw() == draw(source=synthetic.measurement(5, heads=12, groups=12))
    others = [draw(seed=1), draw(block=1), draw("attention")]
    assert len({tuple(np.argsort(scores)) for scores in (draw(), *others)}) == 4


def test_random_plans_repeat_with_the_seed_and_differ_without():
    rule = {"heads__score": "random", "heads__ratio": 0.5, "ffn__score": "random"}
    recipe = families.recipe(**rule, ffn__ratio=0.5)
    one, again = (make_plan(synthetic.measurement(), recipe) for _ in range(2))
    other = make_plan(synthetic.measurement(), recipe.changed(seed=1))
    assert one == again and one != other
    assert len({block.ffn.removed for block in one.blocks}) == 3


def test_every_criterion_says_what_it_is():
    for entry in CRITERIA:
        assert entry.title and entry.summary.endswith(".") and entry.source
        assert "\n" not in entry.summary
