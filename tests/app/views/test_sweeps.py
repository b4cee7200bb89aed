"""The Sweeps page in each of its states, without a browser."""

from __future__ import annotations

from dataclasses import replace

from app.jobs import tasks
from app.session import recorded, visitor_jobs
from pruning.sweep import Sweep, SweepPoint
from tests.helpers import ROOT
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import OWNER, at_address, button, draft_of, labelled, wait_for, words


def point(preset, value, perplexity=20.0):
    return SweepPoint(preset, value, perplexity, 3.0, 0.8, 10, 1.0, "sample (test).")


def test_a_sweep_grows_while_it_runs(visit, engine, monkeypatch):
    def sweeping(store, wanted, device, on_point):
        def run(progress, should_cancel):
            on_point(point("dense", None))
            on_point(replace(point("fast", 0.1), perplexity=22.0))
            engine.gate.wait()
            on_point(point("wanda_sp", 0.1, None))
            return []

        return run

    monkeypatch.setattr(tasks, "sweeping", sweeping)
    at = visit("sweeps")
    assert not at.exception and "Choose what to vary" in words(at)
    button(at, "Start").click().run()
    job = visitor_jobs.manager().of(OWNER, "sweep")[0]
    wait_for(lambda: len(job.request.points) == 2)
    at.run()
    assert not at.exception and len(at.dataframe[0].value) == 2
    assert button(at, "Start").disabled and "held-out" not in words(at)
    engine.gate.set()
    wait_for(lambda: not job.active)
    at.run()
    assert not at.exception and len(at.dataframe[0].value) == 3
    assert job.request.wanted == Sweep(
        plain_recipe(), "ratio", (0.1, 0.2, 0.3, 0.4), ("fast", "wanda_sp")
    )


def test_a_sweep_says_what_is_wrong_with_its_values(visit, engine):
    at = visit("sweeps")
    labelled(at.text_input, "Values").set_value("0.1, much").run()
    assert "not a list of numbers" in at.error[0].value and button(at, "Start").disabled
    labelled(at.text_input, "Values").set_value("0.1, 1.5").run()
    assert "choose one from 0 to below 1" in at.error[0].value
    labelled(at.button_group, "Vary").set_value("samples").run()
    assert not at.exception and not at.error


def open_sweeps(**query):
    """The page at an address of its own; a switch of pages would drop it."""
    return at_address(str(ROOT / "app" / "views" / "sweeps.py"), **query)


def test_the_address_says_what_is_swept(engine):
    at = open_sweeps(
        **{
            "sweep.axis": "tau",
            "sweep.presets": "flap,best",
            "sweep.values.tau": "0.2",
            "sweep.text": "ptb",
        }
    )
    assert not at.exception and not at.error
    assert labelled(at.multiselect, "Methods").value == ["flap", "best"]
    assert labelled(at.button_group, "Vary").value == "tau"
    assert labelled(at.selectbox, "Evaluate on").value == "ptb"
    labelled(at.multiselect, "Methods").set_value(["flap"]).run()
    assert at.query_params["sweep.presets"] == "flap"
    labelled(at.multiselect, "Methods").set_value(["fast", "wanda_sp"]).run()
    assert "sweep.presets" not in at.query_params and at.query_params["sweep.axis"] == "tau"


def test_a_strange_method_in_the_address_is_refused_in_one_sentence(engine):
    at = open_sweeps(**{"sweep.presets": "fast,magic"})
    assert not at.exception
    assert "'magic'" in at.error[0].value and "choose from balanced, best, " in at.error[0].value
    assert labelled(at.multiselect, "Methods").value == ["fast", "wanda_sp"]


def test_methods_are_compared_at_one_size_and_a_row_opens_its_recipe(visit, engine, monkeypatch):
    def sweeping(store, wanted, device, on_point):
        def run(progress, should_cancel):
            on_point(point("dense", None))
            on_point(replace(point("paper", 0.3), perplexity=30.0, recovery="plain"))
            engine.gate.wait()
            on_point(replace(point("best", 0.3), perplexity=25.0))
            return []

        return run

    monkeypatch.setattr(tasks, "sweeping", sweeping)
    monkeypatch.setattr(recorded, "job", lambda: None)  # its tables would come first
    at = visit("compare")
    labelled(at.multiselect, "Methods").set_value([]).run()
    assert "at least one value and one preset" in at.error[0].value
    assert button(at, "Compare methods").disabled
    labelled(at.multiselect, "Methods").set_value(["paper", "best"])
    labelled(at.checkbox, "Only FFN channels").check()
    labelled(at.slider, "Block parameters to keep").set_value(0.7).run()
    button(at, "Compare methods").click().run()
    job = visitor_jobs.manager().of(OWNER, "methods")[0]
    wait_for(lambda: len(job.request.points) == 2)
    at.run()
    assert not at.exception and button(at, "Compare methods").disabled
    assert list(at.dataframe[0].value["÷ dense"].dropna()) == [1.0, 1.5]
    assert at.dataframe[0].value["recovery"].tolist()[1] == "worse, left out"
    assert "1 point without recovery: on held-out text the recovered" in words(at)
    engine.gate.set()
    wait_for(lambda: not job.active)
    at.session_state[f"methods.table.{job.id}"] = {"selection": {"rows": [2], "columns": []}}
    at.run()
    assert not at.exception and len(at.dataframe[0].value) == 3
    button(at, "Open the recipe of Best quality on Prune").click().run()
    draft = draft_of(at)
    assert draft.budget.kept == 0.7 and draft.budget.spare_heads
    assert draft.allocation == "predicted"
