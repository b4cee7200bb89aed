"""Model, Prune and Compare in each of their states, without a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace

from stand_ins import MAIN, OWNER, FakeReport, failing, wait_for, words

from app import report, state, tasks, work
from pruning.criteria import SCORES
from pruning.recipe import Recipe


def charts(at):
    return [element.proto for element in at.get("plotly_chart")]


def button(at, label):
    return next(item for item in at.button if item.label == label)


def test_model_shows_the_demo_without_loading(visit):
    at = visit("model")
    assert not at.exception
    assert "SmolLM2-135M-Instruct" in words(at)
    assert [metric.value for metric in at.metric] == ["134.5 M", "538 MB", "30"]


def test_model_refuses_a_path_outside_the_roots(visit, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADROOM_ROOTS", str(tmp_path))
    at = visit("model")
    at.button_group[0].set_value("folder").run()
    at.text_input(key="model.folder").set_value("/etc").run()
    button(at, "Load").click().run()
    assert "outside the folders" in at.error[0].value
    assert not work.manager().of(OWNER)


def test_measuring_replaces_the_current_measurement(visit, engine, monkeypatch):
    made = replace(state.demo_measurement(), corpus="random", samples=2)
    monkeypatch.setattr(tasks, "measuring", lambda *_: lambda progress, cancel: made)
    at = visit("model")
    button(at, "Measure").click().run()
    wait_for(lambda: not work.manager().of(OWNER)[-1].active)
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
    wait_for(lambda: not work.manager().of(OWNER)[-1].active)
    at.run()
    assert at.error[0].value == "demo cannot be loaded: the disk is gone."


def test_prune_counts_live(visit):
    at = visit("prune")
    assert not at.exception and len(charts(at)) == 1
    before = at.metric[0].value
    slider = next(s for s in at.slider if s.label == "FFN channels to remove")
    slider.set_value(0.5).run()
    assert at.metric[0].value != before
    assert at.session_state["headroom.draft"].ffn.ratio == 0.5


def test_tau_is_shared_by_toggle_and_slider(visit):
    at = visit("prune")
    toggle = next(t for t in at.toggle if t.label == "Remove heads that attend alike")
    toggle.set_value(True).run()
    tau = next(s for s in at.slider if "nats" in s.label)
    tau.set_value(0.1).run()
    assert at.session_state["headroom.draft"].heads.threshold == 0.1
    assert at.metric[3].value != "0 of 270"


def test_an_empty_plan_cannot_run(visit):
    at = visit("prune", **{"headroom.draft": state.initial_recipe().changed(ffn={"ratio": 0.0})})
    assert button(at, "Run").disabled


def test_a_recipe_for_another_model_has_no_preview_but_can_run(visit):
    other = state.initial_recipe().changed(model={"source": "openai-community/gpt2"})
    at = visit("prune", **{"headroom.draft": other})
    assert "not measured yet" in at.warning[0].value and not at.metric
    assert not button(at, "Run").disabled


def test_a_score_that_was_not_measured_has_no_preview_but_can_run(visit):
    at = visit("prune")
    box = next(s for s in at.selectbox if s.label == "Score for FFN channels")
    assert box.options == [entry.title for entry in SCORES]
    box.select("taylor_element1").run()
    assert at.session_state["headroom.draft"].ffn.score == "taylor_element1"
    assert not at.exception and not at.error and not at.metric
    assert "needs a gradient pass" in at.warning[0].value
    assert not button(at, "Run").disabled


def test_every_other_score_previews_on_the_demo(visit):
    at = visit("prune")
    for entry in SCORES:
        if not entry.value.gradients:
            for label in ("Score for heads", "Score for FFN channels"):
                next(s for s in at.selectbox if s.label == label).select(entry.name)
            at.run()
            assert not at.exception and not at.warning and at.metric


def html(at):
    return "\n".join(element.proto.body for element in at.get("html"))


def test_prune_plays_the_run_and_it_can_be_cancelled(visit, engine):
    job = engine.submit()
    at = visit("prune")
    assert not at.exception and len(charts(at)) == 3  # heads, FFN, errors
    assert "Block 3 FFN: 384 of 1,536 channels go" in html(at)
    assert any("Block 3 attention" in caption.value for caption in at.caption)
    traces = json.loads(charts(at)[2].spec)["data"]
    assert any(trace["y"] for trace in traces)
    button(at, "Cancel").click().run()
    wait_for(lambda: job.status == "cancelled")
    at.run()
    assert "Cancelled" in at.info[0].value
    assert not button(at, "Run").disabled
    assert button(at, "Replay its decisions")


def test_a_paused_run_rests_and_goes_on(visit, engine):
    job = engine.submit()
    at = visit("prune")
    button(at, "Pause").click().run()
    assert job.paused
    button(at, "Resume").click().run()
    assert not job.paused
    engine.gate.set()
    wait_for(lambda: job.status == "done")
    at.run()
    assert "of the block parameters are kept" in words(at)
    assert at.slider(key="feed.step").value == len(job.events)


def test_a_run_is_replayed_without_computing(visit, engine):
    job = engine.submit(finish=True)
    at = visit("prune")
    assert not at.get("html")
    button(at, "Replay its decisions").click().run()
    button(at, "Pause").click().run()
    at.slider(key="feed.step").set_value(1).run()
    assert not at.exception
    assert html(at).count("Block 2 ") == 1 and job.events[0].block == 2
    gone = at.metric[0].value
    at.slider(key="feed.step").set_value(3).run()
    assert "Block 3 " in html(at) and at.metric[0].value != gone
    assert work.manager().of(OWNER) == [job]
    button(at, "Back to the recipe").click().run()
    assert not at.get("html") and button(at, "Run")


def test_a_visitor_who_waits_sees_the_place_in_line(visit, engine):
    engine.submit()
    second = work.manager().submit(
        "prune", "Prune demo", engine.prune, owner="second", lane="cpu", about=engine.recipe
    )
    at = visit("prune", **{"headroom.owner": "second"})
    assert not at.exception and second.status == "queued"
    assert "waiting, 1 job ahead" in html(at)
    assert button(at, "Pause").disabled
    button(at, "Cancel").click().run()
    assert second.status == "cancelled"


def test_prune_failed(visit, engine):
    engine.submit(failing("There is no disk space."), finish=True)
    at = visit("prune")
    assert at.error[0].value == "There is no disk space."


def test_another_page_shows_the_running_job(visit, engine):
    engine.submit()
    assert button(visit("model"), "Cancel")


def test_a_reloaded_tab_finds_its_job_again(visit, engine):
    job = engine.submit()
    from streamlit.testing.v1 import AppTest

    at = AppTest.from_file(MAIN, default_timeout=20)
    at.query_params["job"] = job.id
    at.run()
    assert at.session_state["headroom.owner"] == OWNER
    assert at.session_state["headroom.draft"] == engine.recipe


def test_compare_before_any_run(visit):
    at = visit("compare")
    assert not at.exception
    assert "Nothing to compare yet" in words(at) and not charts(at)


def test_compare_while_the_run_is_at_work(visit, engine):
    engine.submit()
    assert "still at work" in words(visit("compare"))


def test_compare_after_a_run(visit, engine, monkeypatch):
    engine.submit(finish=True)
    scores = tasks.Pair(_Score(50.0), _Score(60.0))
    monkeypatch.setattr(tasks, "perplexities", lambda *_: lambda p, c: scores)
    at = visit("compare")
    assert not at.exception and len(charts(at)) == 2
    assert at.metric[0].value != "134.5 M"
    kept, gone = json.loads(charts(at)[0].spec)["data"]
    assert len(kept["x"]) + len(gone["x"]) == 270
    assert any("like head" in text for text in gone["text"])
    button(at, "Evaluate").click().run()
    wait_for(lambda: work.manager().of(OWNER, "perplexity")[-1].status == "done")
    at.run()
    assert "60.00" in [metric.value for metric in at.metric]
    assert "tokenised once" in words(at)


def test_the_recipe_file_reads_back(visit, engine):
    engine.submit(finish=True)
    at = visit("compare")
    assert not at.exception
    assert Recipe.from_yaml(engine.recipe.to_yaml()) == engine.recipe


@dataclass(frozen=True)
class _Score:
    perplexity: float

    def protocol(self) -> str:
        return "sample (test), tokenised once."


@dataclass(frozen=True)
class _Text:
    text: str


def test_compare_offers_every_form(visit, engine, monkeypatch, tmp_path):
    """Each with one line; what is chosen is what the work gets."""
    monkeypatch.setenv("HEADROOM_ROOTS", str(tmp_path))
    asked = []

    def saving(_run, out, form, gguf_type, found):
        asked.append((out, form, gguf_type, found))
        return lambda progress, should_cancel: (out, ("A bias was added.",))

    monkeypatch.setattr(tasks, "saving", saving)
    engine.submit(finish=True)
    at = visit("compare")
    choice = at.radio(key="compare.form")
    assert choice.options == ["Compact", "Uniform", "Padded", "GGUF"]
    assert len(choice.proto.captions) == 4 and all(choice.proto.captions)
    choice.set_value("gguf").run()
    at.text_input(key="compare.folder").set_value(str(tmp_path / "out")).run()
    button(at, "Save").click().run()
    assert asked == [(tmp_path / "out", "gguf", "f16", None)]
    wait_for(lambda: not work.manager().of(OWNER)[-1].active)
    at.run()
    assert f"Saved to {tmp_path / 'out'}." in words(at) and not at.exception
    assert "A bias was added." in words(at)
    at.text_input(key="compare.folder").set_value("/etc/out").run()
    button(at, "Save").click().run()
    assert len(asked) == 1 and "outside the folders" in at.error[0].value


def test_the_report_holds_what_was_compared(engine):
    found = {
        "perplexity": (tasks.Pair(_Score(50.0), _Score(60.0)), ("run",)),
        "texts": (tasks.Pair(_Text("one"), _Text("# two")), ("run", "Say")),
    }
    made = FakeReport(engine.plan)
    data = json.loads(report.as_json(made, found))
    assert data["evaluation"]["perplexity"]["after"]["perplexity"] == 60.0
    assert data["evaluation"]["texts"]["prompt"] == "Say"
    text = report.as_markdown("demo", made, found)
    assert "1.2000" in text and "\n    # two" in text and "## What was removed" in text


def test_drawing_every_page_imports_no_torch():
    code = f"""
import sys
from streamlit.testing.v1 import AppTest
at = AppTest.from_file({MAIN!r}, default_timeout=30).run()
for page in ("model", "heads", "activations", "prune", "compare", "sweeps"):
    at.switch_page(f"views/{{page}}.py").run()
    assert not at.exception, (page, at.exception)
heavy = [name for name in ("torch", "transformers", "datasets") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
