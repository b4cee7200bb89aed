"""Waiting, failed and cancelled work on the pages that start it."""

from __future__ import annotations

import pytest

from app.jobs import compare_tasks, tasks
from app.session import visitor_jobs
from pruning.utils.errors import Cancelled, OutOfMemory, Unsupported
from tests.helpers.finished_jobs import add_run
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import OWNER, button, failing, wait_for, words

# page, button that starts the work, module and function that make it
WORK = {
    "heads": ("Load and look", tasks, "looking"),
    "prune": ("Run", tasks, "pruning_run"),
    "sweeps": ("Start", tasks, "sweeping"),
    "perplexity": ("Evaluate", compare_tasks, "perplexities"),
    "speed": ("Time both", compare_tasks, "speeds"),
    "texts": ("Generate", compare_tasks, "texts"),
    "tokens": ("Read with both", compare_tasks, "losses"),
    "save": ("Save", compare_tasks, "saving"),
    "pack": ("Prepare download", compare_tasks, "packing"),
}
ENDINGS = {
    "unsupported": (Unsupported("The family t5 is not supported."), "error", "not supported"),
    "out of memory": (OutOfMemory("That does not fit; choose less."), "error", "does not fit"),
    "memory error": (MemoryError(), "error", "not enough memory"),
    "a bug": (ValueError("bad\nvalue"), "error", "failed unexpectedly"),
    "no disk": (failing("There is no disk space."), "error", "There is no disk space."),
    "cancelled": (Cancelled("Cancelled; the model is as it was."), "info", "as it was"),
}


@pytest.fixture(params=WORK)
def page(request, visit, engine):
    """The page of a kind of work, and what starts it."""
    name = request.param if request.param in ("heads", "prune", "sweeps") else "compare"
    if name == "compare":
        add_run(0.2)
    return (visit(name), *WORK[request.param])


@pytest.mark.parametrize("ending", ENDINGS)
def test_work_that_does_not_succeed_is_one_sentence(page, monkeypatch, ending):
    at, label, module, function = page
    raised, kind, part = ENDINGS[ending]

    def make(*_):
        def run(progress, should_cancel):
            raise raised

        return run

    monkeypatch.setattr(module, function, make)
    button(at, label).click().run()
    job = visitor_jobs.manager().of(OWNER)[-1]
    wait_for(lambda: not job.active)
    at.run()
    assert not at.exception
    said = [element.value for element in getattr(at, kind) if part in element.value]
    assert len(said) == 1 and "\n" not in said[0] and "Traceback" not in said[0]
    assert not button(at, label).disabled  # try again


def test_work_that_waits_says_so_and_can_be_taken_back(page, engine, monkeypatch):
    at, label, module, function = page
    first = visitor_jobs.manager().submit(
        "prune", "Prune demo", lambda p, c: engine.gate.wait(), owner="other", queue_name="cpu"
    )
    wait_for(lambda: first.status == "running")
    monkeypatch.setattr(module, function, lambda *_: lambda progress, cancel: None)
    button(at, label).click().run()
    job = visitor_jobs.manager().of(OWNER)[-1]
    assert not at.exception and job.status == "queued"
    shown = [element.proto.text for element in at.get("progress")]
    assert any("waiting, 1 job ahead" in text for text in shown), shown
    button(at, "Cancel").click().run()
    assert job.status == "cancelled" and not at.exception
    at.run()
    assert "Cancelled before it started." in words(at)


@pytest.mark.parametrize("name", ["model", "heads", "activations", "compare", "sweeps"])
def test_every_other_page_shows_a_run_at_work(visit, engine, name):
    engine.submit()
    at = visit(name)
    assert not at.exception and button(at, "Cancel")
    assert any("Prune demo" in element.proto.text for element in at.get("progress"))


def test_a_budget_that_cannot_be_met_is_one_sentence(visit):
    draft = plain_recipe().changed(budget={"kept": 0.1}, blocks={"start": 29, "end": 30})
    at = visit("prune", recipe=draft)
    assert not at.exception and len(at.error) == 1 and not at.metric
    assert "\n" not in at.error[0].value
