"""Compare's runs, pairs, marked passages and files; sweeps; the recipe in the address."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
import xml.dom.minidom
from dataclasses import dataclass, replace

import pytest
from stand_ins import MAIN, OWNER, FakeReport, FakeRun, fake_events, wait_for, words
from streamlit.testing.v1 import AppTest

from app import chart_data, compare_runs, recipe_link, report, report_html, state, tasks, work
from app.token_marks import look, passage_html
from pruning.errors import UsageError
from pruning.planning import make_plan
from pruning.recipe import Recipe
from pruning.sweep import Sweep, SweepPoint

EVIL = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Score:
    perplexity: float
    corpus: str = "sample"

    def protocol(self) -> str:
        return f"{self.corpus} (test), tokenised once."


@dataclass(frozen=True)
class Rate:
    prefill: float
    decode: float


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Losses:
    """As the engine's TokenLosses, which imports torch."""

    passages: tuple
    corpus: str = "sample"
    split: str = "test"
    seq_len: int = 3

    def worst(self, count):
        return [(0, 2, 4.0), (0, 1, 0.5)][:count]


@dataclass(frozen=True)
class Passage:
    pieces: tuple = ("The", f" {EVIL}", " sea")
    dense: tuple = (1.0, 2.0)
    pruned: tuple = (1.5, 6.0)
    mean_rise: float = 2.25


LOSSES = Losses((Passage(),))


def button(at, label):
    return next(item for item in at.button if item.label == label)


def add(kind, result, about, **more):
    """A finished job of the visitor."""
    job = work.manager().submit(
        kind, kind, lambda p, c: result, owner=OWNER, lane="cpu", about=about, **more
    )
    wait_for(lambda: not job.active)
    return job


def add_run(ratio):
    recipe = state.initial_recipe().changed(ffn={"ratio": ratio}, heads={"threshold": 0.1})
    plan = make_plan(state.demo_measurement(), recipe)
    run = FakeRun(plan, FakeReport(plan), events=tuple(fake_events(plan)), recipe=recipe)
    return add("prune", run, recipe, weigh=lambda run: {id(run): 1}, lighten=tasks.without_models)


def test_every_run_stays_though_models_are_let_go(visit, engine):
    jobs = [add_run(ratio) for ratio in (0.1, 0.2, 0.3, 0.4, 0.5)]
    add("estimate", None, None)  # the queue tidies up after each job
    assert [tasks.has_models(job.result) for job in jobs] == [False, False, True, True, True]
    add("perplexity", tasks.Pair(Score(50.0), Score(60.0)), (jobs[0].id,))
    at = visit("compare")
    assert not at.exception
    table = at.dataframe[0].value
    assert list(table["run"]) == ["#5", "#4", "#3", "#2", "#1"]
    assert table["perplexity"].tolist()[-1] == 60.0 and table["perplexity"].isna().sum() == 4
    at.selectbox(key="compare.run").select(jobs[0].id).run()
    assert not at.exception and "60.00" in [metric.value for metric in at.metric]
    assert button(at, "Evaluate").disabled and button(at, "Write").disabled
    assert "weights of this run were let go" in words(at)


def test_perplexities_of_all_runs_on_one_protocol(visit, engine, monkeypatch):
    jobs = [add_run(ratio) for ratio in (0.1, 0.4)]
    scores = tasks.Pair(Score(50.0), Score(61.0))
    rates = tasks.Pair(Rate(10.0, 5.0), Rate(12.0, 6.0))
    monkeypatch.setattr(tasks, "perplexities", lambda *_: lambda p, c: scores)
    monkeypatch.setattr(tasks, "speeds", lambda *_: lambda p, c: rates)
    at = visit("compare")
    button(at, "Evaluate and time all").click().run()
    wait_for(lambda: all(not job.active for job in work.manager().of(OWNER)))
    add("perplexity", tasks.Pair(Score(20.0, "ptb"), Score(30.0, "ptb")), (jobs[0].id,))
    at.run()
    assert not at.exception
    table = next(d.value for d in at.dataframe if "÷ dense" in d.value)
    assert table["perplexity"].tolist() == [61.0, 61.0]
    assert table["tokens/s, writing"].tolist() == [6.0, 6.0]
    at.selectbox(key="compare.protocol").select(Score(1.0, "ptb").protocol()).run()
    table = next(d.value for d in at.dataframe if "÷ dense" in d.value)
    assert table["perplexity"].tolist()[1] == 30.0
    clouds = [json.loads(e.proto.spec)["data"] for e in at.get("plotly_chart")]
    assert sum(trace[0].get("name") == "pruned" for trace in clouds) == 2


def test_two_runs_side_by_side(visit, engine):
    first, second = add_run(0.1), add_run(0.4)
    at = visit("compare")
    assert not at.exception
    blocks = next(d.value for d in at.dataframe if "channels in common" in d.value)
    assert len(blocks) == 30 and (blocks["channels in #1"] > blocks["channels in #2"]).all()
    assert compare_runs.settings_that_differ(first.about, second.about) == [
        ("ffn, ratio", "0.1", "0.4")
    ]


def test_a_marked_passage_is_escaped_and_marked_without_colour_too():
    html = passage_html(Passage().pieces, Passage().dense, Passage().pruned)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "double" in look(4.0) and "dotted" in look(0.5) and "dashed" in look(-1.0)
    assert "solid" in look(1.5) and look(0.1) == ""


def test_reading_shows_the_worst_passage(visit, engine, monkeypatch):
    add_run(0.2)
    monkeypatch.setattr(tasks, "losses", lambda *_: lambda p, c: LOSSES)
    at = visit("compare")
    button(at, "Read with both").click().run()
    wait_for(lambda: not work.manager().of(OWNER, "tokens")[-1].active)
    at.run()
    assert not at.exception
    assert next(d.value for d in at.dataframe if "rise" in d.value)["rise"].tolist() == [4.0, 0.5]


def test_text_shows_while_it_is_written(visit, engine):
    run = add_run(0.2)
    live = tasks.Writing()
    live.before.extend(["and", " falls"])
    job = work.manager().submit(
        "texts", "Text", lambda p, c: engine.gate.wait(60), owner=OWNER, lane="other",
        about=(run.id, "Water rises ", live),
    )  # fmt: skip
    wait_for(lambda: job.status == "running")
    at = visit("compare")
    assert not at.exception
    assert [text.value for text in at.text] == ["Water rises and falls", "Water rises"]


def found_things():
    return {
        "perplexity": (tasks.Pair(Score(50.0), Score(60.0)), ("run",)),
        "speed": (tasks.Pair(Rate(10.0, 5.0), Rate(12.0, 6.0)), ("run",)),
        "tokens": (LOSSES, ("run",)),
        "texts": (tasks.Pair(Text("one"), Text(EVIL)), ("run", "Say")),
    }


def test_the_html_report_is_whole_and_asks_for_nothing(engine):
    job = add_run(0.4)
    html = report_html.as_html("demo <1>", job.result, found_things())
    assert "<script" not in html and "demo &lt;1&gt;" in html
    assert not re.search(r"(src|href)=|url\(|@import", html)
    assert "default-src 'none'" in html and "@media print" in html
    assert html.count("<svg") == 3 and "60.000" in html and "like head" in html
    for drawing in re.findall(r"<svg.*?</svg>", html, flags=re.S):
        xml.dom.minidom.parseString(drawing)
    assert "threshold: 0.1" in html


def test_markdown_and_json_take_the_tokens(engine):
    made = FakeReport(engine.plan)
    assert "## Tokens whose likelihood fell most" in report.as_markdown("m", made, found_things())
    assert "tokens" not in json.loads(report.as_json(made, found_things()))["evaluation"]


def test_chart_data_reads_back_and_is_no_formula(engine):
    rows = list(csv.DictReader(io.StringIO(chart_data.as_csv(chart_data.head_rows(engine.plan)))))
    assert len(rows) == 270 and sum(row["kept"] == "False" for row in rows) > 0
    assert len(chart_data.width_rows(engine.plan)) == 30
    assert chart_data.as_csv([{"text": "=1+1"}]) == "text\n'=1+1\n"
    assert chart_data.as_csv([]) == ""


def test_a_recipe_survives_the_address():
    for recipe in (
        Recipe(),
        state.initial_recipe().changed(by_hand={3: {"heads": 0.5}}, allocation="by_hand"),
        state.initial_recipe().changed(heads={"threshold": 0.1}, model={"source": "a/b"}),
    ):
        text = recipe_link.encode(recipe)
        assert recipe_link.decode(text) == recipe and re.fullmatch(r"[\w-]+", text)
        assert len(text) < 400


@pytest.mark.parametrize(
    "text", ["", "x", "a" * 9000, "eJwrLQIA", recipe_link.encode(Recipe())[:-3]]
)
def test_a_damaged_address_is_one_sentence(text):
    with pytest.raises(UsageError) as caught:
        recipe_link.decode(text)
    assert "\n" not in str(caught.value)


def test_the_address_restores_the_draft_and_follows_it(engine):
    wanted = state.initial_recipe().changed(ffn={"ratio": 0.45}, seed=7)
    at = AppTest.from_file(MAIN, default_timeout=20)
    at.query_params["recipe"] = recipe_link.encode(wanted)
    at.run()
    assert at.session_state["headroom.draft"] == wanted
    at.switch_page("views/prune.py").run()
    slider = next(s for s in at.slider if s.label == "FFN channels to remove")
    assert slider.value == 0.45
    slider.set_value(0.3).run()
    at.run()
    given = at.query_params["recipe"]
    given = given[0] if isinstance(given, list) else given
    assert recipe_link.decode(given).ffn.ratio == 0.3


def test_an_address_may_not_name_files_outside_the_roots(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("HEADROOM_ROOTS", str(tmp_path))
    at = AppTest.from_file(MAIN, default_timeout=20)
    at.query_params["recipe"] = recipe_link.encode(Recipe.parse({"model": {"source": "/etc"}}))
    at.run().switch_page("views/prune.py").run()
    assert at.session_state["headroom.draft"].model.source == "demo"


def test_a_run_of_the_session_can_be_opened_again(visit, engine):
    run = add_run(0.35)
    at = visit("compare")
    button(at, "Open recipe on Prune").click().run()
    assert at.session_state["headroom.draft"] == run.about


def point(preset, value, perplexity=20.0):
    return SweepPoint(preset, value, perplexity, 3.0, 0.8, 10, 1.0, "sample (test).")


def test_a_sweep_grows_while_it_runs(visit, engine, monkeypatch):
    def sweeping(store, wanted, device, on_point):
        def run(progress, should_cancel):
            on_point(point("dense", None))
            on_point(replace(point("fast", 0.1), perplexity=22.0))
            engine.gate.wait(5)
            on_point(point("wanda_sp", 0.1, None))
            return []

        return run

    monkeypatch.setattr(tasks, "sweeping", sweeping)
    at = visit("sweeps")
    assert not at.exception and "Choose what to vary" in words(at)
    button(at, "Start").click().run()
    job = work.manager().of(OWNER, "sweep")[0]
    wait_for(lambda: len(job.about.points) == 2)
    at.run()
    assert not at.exception and len(at.dataframe[0].value) == 2
    assert button(at, "Start").disabled
    engine.gate.set()
    wait_for(lambda: not job.active)
    at.run()
    assert not at.exception and len(at.dataframe[0].value) == 3
    assert job.about.wanted == Sweep(
        state.initial_recipe(), "ratio", (0.1, 0.2, 0.3, 0.4), ("fast", "wanda_sp")
    )


def test_methods_are_compared_at_one_size_and_a_row_opens_its_recipe(visit, engine, monkeypatch):
    def sweeping(store, wanted, device, on_point):
        def run(progress, should_cancel):
            on_point(point("dense", None))
            on_point(replace(point("paper", 0.3), perplexity=30.0))
            engine.gate.wait(5)
            on_point(replace(point("best", 0.3), perplexity=25.0))
            return []

        return run

    monkeypatch.setattr(tasks, "sweeping", sweeping)
    at = visit("compare")
    at.multiselect(key="methods.presets").set_value([]).run()
    assert "at least one value and one preset" in at.error[0].value
    assert button(at, "Compare methods").disabled
    at.multiselect(key="methods.presets").set_value(["paper", "best"])
    at.slider(key="methods.kept").set_value(0.7).run()
    button(at, "Compare methods").click().run()
    job = work.manager().of(OWNER, "methods")[0]
    wait_for(lambda: len(job.about.points) == 2)
    at.run()
    assert not at.exception and button(at, "Compare methods").disabled
    assert list(at.dataframe[0].value["÷ dense"].dropna()) == [1.0, 1.5]
    engine.gate.set()
    wait_for(lambda: not job.active)
    at.session_state[f"methods.table.{job.id}"] = {"selection": {"rows": [2], "columns": []}}
    at.run()
    assert not at.exception and len(at.dataframe[0].value) == 3
    button(at, "Open the recipe of Best quality on Prune").click().run()
    draft = at.session_state["headroom.draft"]
    assert draft.budget.kept == 0.7 and draft.allocation == "predicted"


def test_a_sweep_says_what_is_wrong_with_its_values(visit, engine):
    at = visit("sweeps")
    at.text_input(key="sweep.values.ratio").set_value("0.1, much").run()
    assert "not a list of numbers" in at.error[0].value and button(at, "Start").disabled
    at.text_input(key="sweep.values.ratio").set_value("0.1, 1.5").run()
    assert "choose one from 0 to below 1" in at.error[0].value
    at.button_group(key="sweep.axis").set_value("samples").run()
    assert not at.exception and not at.error


def test_the_tour_leads_through_the_pages(visit, engine):
    at = visit("heads")
    assert "Six short steps" in words(at)
    button(at, "Take the tour").click().run()
    seen = []
    for step in range(6):
        assert not at.exception and f"{step + 1} of 6" in words(at)
        seen.append(at.title[0].value)
        button(at, "Done" if step == 5 else "Next").click().run()
    assert seen == ["Heads", "Heads", "Activations", "Prune", "Prune", "Compare"]
    assert "of 6 ·" not in words(at)
    assert not any(
        item.label == "Take the tour" for item in at.switch_page("views/heads.py").run().button
    )


def test_a_running_evaluation_may_show_in_two_tabs(visit, engine):
    run, hold = add_run(0.2), threading.Event()
    work.manager().submit(
        "perplexity", "Perplexity", lambda p, c: hold.wait(20), owner=OWNER, lane="cpu",
        about=(run.id,),
    )  # fmt: skip
    try:
        at = visit("compare")
        assert not at.exception
        assert [item.label for item in at.button].count("Cancel") == 2
    finally:
        hold.set()
