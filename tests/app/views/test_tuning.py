"""Training after the cut on the Prune page: its settings, its curve, its sentence."""

from __future__ import annotations

import json

from app.charts.tuning import tuning_chart, tuning_rows
from app.jobs.progress import prune_steps
from app.report.svg import svg
from app.session import visitor_jobs
from pruning.artifacts.events import Progress
from pruning.artifacts.tuning import TuningReport, TuningStep
from pruning.tuning import base
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import OWNER, button, charts, draft_of, labelled, words

CURVE = tuple(TuningStep(10 * n, 40, 2560 * n, 0.5 / n) for n in (1, 2, 3))
REPORT = TuningReport(
    "norms", "Gains", 9, 80, 128, 1, 2, 2e-3, 8, 0.4, 0.2, "tuned", 3.0, curve=CURVE
)


def test_a_method_brings_its_own_settings(visit):
    at = visit("prune")
    assert "Epochs" not in [box.label for box in at.number_input]
    labelled(at.selectbox, "Tuning").select("lora").run()
    assert not at.exception and draft_of(at).tune.method == "lora"
    labelled(at.number_input, "Rank of the adapters").set_value(4).run()
    labelled(at.number_input, "Epochs").set_value(2).run()
    assert (draft_of(at).tune.rank, draft_of(at).tune.epochs) == (4, 2)
    assert "tuned: lora" in words(at) and "End to end" in words(at)
    assert labelled(at.selectbox, "Method").value is None  # no preset trains
    labelled(at.selectbox, "Tuning").select("norms").run()
    assert "Rank of the adapters" not in [box.label for box in at.number_input]
    steps = prune_steps(draft_of(at))
    assert steps[-1].stage == "tune" and "tune" not in [
        s.stage for s in prune_steps(plain_recipe())
    ]


def test_a_missing_package_is_said_before_a_job_starts(visit, engine, monkeypatch):
    monkeypatch.setattr(base, "find_spec", lambda package: None)
    recipe = plain_recipe().changed(ffn={"ratio": 0.2}, tune={"method": "lora"})
    at = visit("prune", recipe)
    button(at, "Run").click().run()
    assert "headroom[tune]" in words(at) and visitor_jobs.manager().of(OWNER) == []


def test_its_curve_is_in_the_feed_in_place_of_the_errors(visit, engine):
    job = engine.submit()
    for point in CURVE:
        job.report(Progress("tune", point.step, point.steps, "", tuning=point))
    assert job.curve == list(CURVE)
    at = visit("prune")
    assert not at.exception and "##### Training" in words(at)
    assert "##### Reconstruction error" not in words(at)
    (trace,) = json.loads(charts(at)[-1].spec)["data"]
    assert trace["x"] == [2560, 5120, 7680] and trace["y"] == [0.5, 0.25, 0.5 / 3]


def test_the_chart_says_what_it_shows_and_can_be_printed():
    chart = tuning_chart(CURVE)
    assert "0.500 to 0.167 nats" in chart.alt and chart.x.span[1] > 4 * 2560
    assert tuning_rows(CURVE)[0] == {"step": 10, "tokens": 2560, "divergence": 0.5}
    assert svg(chart).count("<circle") == 3 and "nats per token" in svg(chart)
    assert list(chart.y.ticks.values()) == ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert list(chart.x.ticks.values()) == ["0", "5,000", "10,000"]
    assert svg(tuning_chart(CURVE[:1])).count("<circle") == 1


def test_what_came_of_it_is_said_after_the_run(visit, engine):
    job = engine.submit(finish=True)
    job.result.report.tuning = REPORT
    assert REPORT.sentence() in words(visit("prune"))
