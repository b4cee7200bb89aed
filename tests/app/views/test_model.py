"""The Model page in each of its states, without a browser."""

from __future__ import annotations

from dataclasses import replace

from app.jobs import tasks
from app.session import state, visitor_jobs
from tests.helpers.stand_ins import OWNER, button, failing, labelled, wait_for, words


def test_model_shows_the_demo_without_loading(visit):
    at = visit("model")
    assert not at.exception
    assert "SmolLM2-135M-Instruct" in words(at)
    assert [metric.value for metric in at.metric] == ["134.5 M", "269 MB", "30"]


def test_model_refuses_a_path_outside_the_roots(visit, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADROOM_ROOTS", str(tmp_path))
    at = visit("model")
    at.button_group[0].set_value("folder").run()
    labelled(at.text_input, "Folder on the server").set_value("/etc").run()
    button(at, "Load").click().run()
    assert "outside the folders" in at.error[0].value
    assert not visitor_jobs.manager().of(OWNER)


def test_measuring_replaces_the_current_measurement(visit, engine, monkeypatch):
    made = replace(state.demo_measurement(), corpus="random", samples=2)
    monkeypatch.setattr(tasks, "measuring", lambda *_: lambda progress, cancel: made)
    at = visit("model")
    button(at, "Measure").click().run()
    wait_for(lambda: not visitor_jobs.manager().of(OWNER)[-1].active)
    at.run()
    assert "measured on random (2 ×" in words(at)
    assert "Measured." in words(at)


def test_a_failed_load_says_why(visit, engine, monkeypatch):
    def loading(*_):
        def broken(progress, should_cancel):
            raise failing("demo cannot be loaded: the disk is gone.")

        return broken

    monkeypatch.setattr(tasks, "loading", loading)
    at = visit("model")
    button(at, "Load").click().run()
    wait_for(lambda: not visitor_jobs.manager().of(OWNER)[-1].active)
    at.run()
    assert at.error[0].value == "demo cannot be loaded: the disk is gone."
