"""Zero-shot tasks and continuations on the Compare page, without a browser."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from app.jobs import compare_tasks
from app.jobs.estimate import Estimator
from app.report import report
from app.session import state, visitor_jobs
from pruning.artifacts.comparison import Pair
from pruning.artifacts.zero_shot import TASK_NAMES, TaskScore, ZeroShot, task_tokens
from tests.helpers.finished_jobs import add, add_run
from tests.helpers.stand_ins import OWNER, button, labelled, wait_for, words


@dataclass(frozen=True)
class Written:
    """As the engine's Continuations, which imports torch."""

    agreement: float = 0.75
    repeated: float = 0.2
    dense_repeated: float = 0.1

    def protocol(self):
        return "Greedy continuations of 20 prompts."

    def as_dict(self):
        return asdict(self)


def scores(accuracy):
    found = [
        TaskScore("boolq", "acc", accuracy, 0.1, accuracy, 0.1, 20, 40, "2.0", "boolq.jsonl"),
        TaskScore("piqa", "acc_norm", 0.5, None, 0.5, None, 20, 40, "1.0", "hub"),
    ]
    return ZeroShot("demo", "float32", "cpu", 20, 8, 3.0, {"lm_eval": "0.4.13"}, tuple(found))


PAIR = Pair(scores(0.7), scores(0.6))


def test_both_models_are_scored_side_by_side(visit, engine, monkeypatch):
    monkeypatch.setenv("HEADROOM_TASK_DATA", "/data/rows")
    run, asked = add_run(0.2), []

    def zero_shots(result, *details):
        asked.append((result is run.result, *details))
        return lambda progress, should_cancel: PAIR

    monkeypatch.setattr(compare_tasks, "zero_shots", zero_shots)
    at = visit("compare")
    assert not at.exception and "rows from the server's folder" in words(at)
    labelled(at.multiselect, "Tasks").set_value(["boolq", "piqa"]).run()
    labelled(at.number_input, "Items per task").set_value(7).run()
    button(at, "Score both").click().run()
    assert asked == [(True, ("boolq", "piqa"), 7, "/data/rows")]
    job = visitor_jobs.manager().of(OWNER, "zero_shot")[-1]
    assert job.estimate > 0
    wait_for(lambda: not job.active)
    at.run()
    table = next(d.value for d in at.dataframe if "metric" in d.value)
    assert table["dense"].tolist() == ["70.0% ± 10.0%", "50.0%", "60.0%"]
    assert table["pruned"].tolist() == ["60.0% ± 10.0%", "50.0%", "55.0%"]
    assert "lm_eval 0.4.13, zero-shot, the first 20 items" in words(at)
    assert "tasks boolq 2.0, piqa 1.0" in words(at) and "boolq: boolq.jsonl" in words(at)
    labelled(at.multiselect, "Tasks").set_value([]).run()
    assert button(at, "Score both").disabled


def test_both_models_write_on(visit, engine, monkeypatch):
    add_run(0.2)
    monkeypatch.setattr(compare_tasks, "written", lambda run: lambda p, c: Written())
    at = visit("compare")
    button(at, "Let both write on").click().run()
    wait_for(lambda: not visitor_jobs.manager().of(OWNER, "written")[-1].active)
    at.run()
    assert not at.exception
    table = next(d.value for d in at.dataframe if "Repeated 4-grams" in str(d.value.values))
    assert table["pruned"].tolist() == ["20.0%", "75.0%"]


def test_without_lm_eval_one_sentence_says_what_to_install(visit, engine, monkeypatch):
    add_run(0.2)
    monkeypatch.setattr("pruning.artifacts.zero_shot.find_spec", lambda name: None)
    at = visit("compare")
    assert "Zero-shot tasks need lm_eval; run: pip install 'headroom[eval]'." in words(at)
    assert not [item for item in at.button if item.label == "Score both"]


def test_reports_have_both(engine):
    run = add_run(0.2)
    add("zero_shot", PAIR, (run.id,))
    results = {"zero_shot": (PAIR, (run.id,)), "written": (Written(), (run.id,))}
    for text in (
        report.as_html("demo", run.result, results),
        report.as_markdown("demo", run.result, results),
    ):
        assert "Zero-shot accuracy" in text and "70.0% ± 10.0%" in text
        assert "Repeated 4-grams" in text and "75.0%" in text
    data = json.loads(report.as_json("demo", run.result, results))["evaluation"]
    assert data["zero_shot"]["after"]["scores"][0]["accuracy"] == 0.6
    assert data["written"]["agreement"] == 0.75


def test_the_estimate_follows_the_items():
    shape, estimator = state.demo_measurement().shape, Estimator(3e11)
    few, many = (estimator.of_tasks(TASK_NAMES, limit, shape) for limit in (10, 20))
    assert many == 2 * few and estimator.of_tasks(TASK_NAMES, None, shape) > 100 * few
    assert task_tokens(("boolq",), 10) == 1500 == task_tokens(("boolq", "piqa"), 10) - 700
