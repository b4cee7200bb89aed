"""A run ends with its answer: Prune asks for it, Compare opens with it."""

from __future__ import annotations

from dataclasses import replace

from app.jobs import devices, tasks
from app.jobs.model_store import ModelStore
from app.session import state
from pruning.artifacts.comparison import Comparison, Generation, Pair, Questions
from tests.helpers.finished_jobs import EVIL, LOSSES, Rate, Score, add_run
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import button, failing, labelled, words

FOUND = Comparison(
    perplexity=Pair(Score(58.2), Score(68.4)),
    tokens=LOSSES,
    speed=Pair(Rate(100.0, 10.0), Rate(120.0, 12.0)),
    texts=Pair(Generation(" moves.", 2, 0.1), Generation(f" {EVIL}", 3, 0.1)),
    prompt="The sea",
)


def answered(found=FOUND):
    job = add_run(0.2)
    job.result = replace(job.result, comparison=found)
    return job


def html(at):
    return "\n".join(element.proto.body for element in at.get("html"))


def test_compare_opens_finished(visit, engine):
    job = answered()
    at = visit("compare")
    gone = 1 - job.result.report.kept_block_parameters
    sentence = f"{gone:.0%} of the block parameters gone, perplexity 58 → 68, 1.2 × as fast"
    assert not at.exception and sentence in html(at)
    values = [metric.value for metric in at.metric]
    assert "68.40" in values and "12.0 tok/s" in values
    assert [text.value for text in at.text] == ["The sea moves.", f"The sea {EVIL}"]
    assert any("rise" in table.value for table in at.dataframe)
    assert not button(at, "Evaluate").disabled  # another text can still be asked for


def test_the_last_run_is_said_on_prune(visit, engine):
    answered()
    at = visit("prune")
    assert "perplexity 58 → 68, 1.2 × as fast" in words(at)


def test_what_could_not_be_answered_is_said(visit, engine):
    answered(Comparison(problems=("The text is too short; choose another one.",)))
    at = visit("compare")
    assert not at.exception and "The text is too short" in words(at)


def test_what_is_asked_is_a_setting(visit, monkeypatch):
    asked = []

    def pruning_run(store, recipe, device, questions, timed):
        asked.append(questions)
        raise failing("The work is not done here.")

    monkeypatch.setattr(tasks, "pruning_run", pruning_run)
    at = visit("prune")
    labelled(at.button_group, "Compare both models by").set_value(["reading"]).run()
    labelled(at.number_input, "Windows").set_value(4).run()
    button(at, "Run").click().run()
    assert asked == [Questions(windows=4, speed=False, prompt=None)]


def test_before_run_the_page_says_how_long_it_will_take(visit, monkeypatch):
    at = visit("prune", recipe=state.initial_recipe())
    assert "on this machine" in words(at) and "**about" in words(at)
    monkeypatch.setattr(devices, "queue_name", lambda device: "cuda")
    assert "on this machine" not in words(at.run())  # a GPU was not timed yet


def test_the_last_steps_are_announced():
    recipe = plain_recipe()

    def titles(questions):
        steps = tasks.pruning_run(ModelStore(), recipe, "cpu", questions).steps
        return [step.title for step in steps if "both models" in step.title]

    assert titles(None) == []
    assert titles(Questions(speed=False)) == [
        "reading a text with both models",
        "letting both models write",
    ]
