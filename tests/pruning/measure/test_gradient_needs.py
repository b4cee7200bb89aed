"""When a gradient pass is made: asked for, or needed by a criterion, and never twice."""

from __future__ import annotations

import pytest

from pruning.criteria import CRITERIA
from pruning.measure.windows import gradient_windows
from pruning.pipeline import measure_model, prune
from pruning.planning.planner import make_plan, needs_gradients
from pruning.utils.errors import NeedsMeasurement
from tests.helpers import families, synthetic

GRADIENTS = [entry.name for entry in CRITERIA if entry.value.gradients]


@pytest.fixture(params=families.FAMILIES, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_measurement_without_gradients_is_refused_in_one_sentence(name):
    for rule in ({"ffn__score": name}, {"heads__score": name}):
        recipe = families.recipe(**rule, ffn__ratio=0.2, heads__ratio=0.2)
        assert needs_gradients(recipe)
        with pytest.raises(
            NeedsMeasurement, match="needs a gradient pass; measure again"
        ) as caught:
            make_plan(synthetic.measurement(), recipe)
        assert "\n" not in str(caught.value)
    assert not needs_gradients(families.recipe())


def test_a_run_measures_what_its_criteria_need(tiny, monkeypatch, tmp_path):
    """The forward pass is shared through the cache; the gradient pass is made only when asked."""
    import pruning.measure.passes as passes

    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path))
    calls = []
    for name in ("measure", "with_gradients"):
        real = getattr(passes, name)
        monkeypatch.setattr(
            passes, name, lambda *a, _n=name, _r=real, **k: calls.append(_n) or _r(*a, **k)
        )
    measure_model(tiny, families.recipe())
    assert calls == ["measure"]
    recipe = families.recipe(ffn__score="taylor_element1", ffn__ratio=0.3)
    assert measure_model(tiny, recipe).blocks[0].ffn.statistics["taylor_element1"].any()
    measure_model(tiny, families.recipe(), gradients=True)
    assert calls == ["measure", "with_gradients"]
    measure_model(tiny, recipe.changed(calibration={"gradient_samples": 3}))
    assert calls == ["measure", "with_gradients", "with_gradients"]


def test_windows_of_the_gradient_pass(tiny):
    recipe = families.recipe()
    assert gradient_windows(tiny, recipe).ids.shape == (10, families.POSITIONS)
    recipe = recipe.changed(calibration={"gradient_samples": 3, "gradient_seq_len": 8})
    assert gradient_windows(tiny, recipe).ids.shape == (3, 8)


@pytest.mark.parametrize("name", ["random", *GRADIENTS])
def test_rescoring_leaves_decisions_that_cannot_be_taken_again(tiny, name):
    recipe = families.recipe(
        heads__score=name,
        heads__ratio=0.4,
        ffn__score=name,
        ffn__ratio=0.3,
        recovery={"method": "full", "rescore": True},
    )
    plan = make_plan(measure_model(tiny, recipe), recipe)
    assert prune(tiny, recipe).plan == plan
