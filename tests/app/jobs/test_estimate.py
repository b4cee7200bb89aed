"""How long a run will take, before it starts."""

from __future__ import annotations

from functools import partial

import pytest

from app.jobs import solve_cost, tasks
from app.jobs.estimate import Estimator, machine_rate, total
from app.jobs.progress import LOAD, PRUNE
from app.session import state
from pruning.artifacts.comparison import Questions, Speed
from pruning.artifacts.shapes import footprint, full_widths
from pruning.presets import with_preset
from pruning.sweep import Sweep
from tests.helpers.recipes import plain_recipe

SHAPE = state.demo_measurement().shape
FLOPS = footprint(SHAPE, full_widths(SHAPE), 128).flops_per_token


def seconds(recipe, estimator=None, questions=None, **more):
    estimator = estimator or Estimator(3e11)
    steps = tasks.run_steps(recipe, questions)
    return total(estimator.timed(steps, recipe, SHAPE, questions, **more))


TOOK = {
    ("balanced", 0): {"cutting": 28.2, "comparing": 6.0, "reading a": 12.1, "timing": 5.1},
    ("fast", 0): {"cutting": 27.4, "comparing": 6.2},
    ("best", 0): {"resampling": 5.9, "cutting": 59.3, "comparing": 6.2},
    ("paper", 0): {"cutting": 91.4, "comparing": 6.1},
    ("flap", 0): {"cutting": 23.1, "comparing": 6.8},
    ("balanced", 5): {"measuring": 11.9, "measuring g": 11.2, "measuring l": 55.3, "cutting": 34.7},
}
"""benchmarks/README.md, What a run takes: CPU seconds of stages, by preset and seed."""


@pytest.mark.parametrize(("name", "seed"), TOOK)
def test_stages_take_what_was_measured(name, seed):
    estimator = Estimator(82e9, autocast=2.0, decoded=17.5)
    recipe = with_preset(state.initial_recipe(), name).changed(seed=seed)
    steps = tasks.run_steps(recipe, Questions())
    thought = estimator.timed(steps, recipe, SHAPE, Questions(), is_loaded=True)
    for start, took in TOOK[name, seed].items():
        weight = next(step.weight for step in thought if step.title.startswith(start))
        assert took / 1.5 < weight < took * 1.5, (start, weight)


def test_what_is_solved_is_counted():
    """Elimination, its curves, augmentations, and layers that lose nothing."""
    base = plain_recipe().changed(seed=5, recovery={"choice": "score", "copies": 0})
    cost = partial(solve_cost.of_prune, shape=SHAPE, tokens=4096)
    chosen = base.changed(recovery={"choice": "elimination"})
    assert cost(base) < cost(chosen) < 4 * cost(base)
    assert solve_cost.of_prune(base, SHAPE, 16_384) > 1.5 * cost(base)
    assert cost(base.changed(recovery={"method": "none"})) == 0.0
    assert cost(base.changed(blocks={"start": 0, "end": 3})) == pytest.approx(cost(base) / 10)
    kept = with_preset(state.initial_recipe(), "balanced")
    assert cost(kept) < cost(kept.changed(budget={"kept": 0.7}))
    curves = [solve_cost.of_curves(recipe, SHAPE, 4096) for recipe in (base, chosen)]
    assert curves[0] < curves[1] < 2 * curves[0]


def test_more_to_do_takes_longer():
    plain = plain_recipe().changed(seed=5)
    assert seconds(plain, is_loaded=True) < seconds(plain)
    assert seconds(plain) < seconds(plain, questions=Questions())
    assert seconds(plain.changed(recovery={"copies": 0})) < seconds(plain)
    assert seconds(plain) < seconds(plain.changed(calibration={"samples": 64}))
    assert seconds(plain, Estimator(1e11)) > seconds(plain, Estimator(2e11))


def test_a_model_that_was_timed_says_how_fast_the_machine_is():
    estimator = Estimator(1.0)
    own, quick = Speed(prefill=1000.0, decode=50.0), Speed(prefill=2500.0, decode=9.0)
    estimator.measured(own, None, SHAPE, 128)
    blocks = FLOPS - 2 * SHAPE.head_weights  # a prompt is read without the head
    assert estimator.rate == pytest.approx(1000.0 * blocks) and estimator.decoded == 20.0
    slow = seconds(plain_recipe(), estimator)
    assert slow == seconds(plain_recipe().changed(recovery={"compute": "auto"}), estimator)
    estimator.measured(own, quick, SHAPE, 128)
    assert estimator.autocast == 2.5
    assert seconds(plain_recipe(), estimator) > seconds(
        plain_recipe().changed(recovery={"compute": "auto"}), estimator
    )


def test_a_finished_run_corrects_the_next_estimate():
    estimator = Estimator(3e11)
    before = seconds(plain_recipe(), estimator)
    estimator.learn(before, 2 * before)
    assert seconds(plain_recipe(), estimator) == pytest.approx(2 * before, rel=0.01)


def test_steps_keep_their_order_and_weigh_seconds():
    recipe = state.initial_recipe()
    steps = Estimator(3e11).timed(tasks.run_steps(recipe, Questions()), recipe, SHAPE)
    titles = [step.title for step in steps]
    assert titles[:2] == [LOAD.title, PRUNE.title] and len(titles) == 6
    assert steps[1].weight > 5 * steps[5].weight / 2


def test_a_sweep_measures_once():
    estimator = Estimator(3e11)
    one = Sweep(plain_recipe().changed(seed=5), "ratio", (0.1,), ("fast",))
    two = Sweep(plain_recipe().changed(seed=5), "ratio", (0.1, 0.2), ("fast",))
    first, both = (estimator.of_sweep(wanted, SHAPE) for wanted in (one, two))
    assert first < both < 2 * first


def test_the_machine_is_measured():
    assert machine_rate() > 1e8
