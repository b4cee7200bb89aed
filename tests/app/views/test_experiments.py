"""The Experiments page in each of its states, without a browser."""

from __future__ import annotations

import json
import re

import pytest

from app.charts import experiments as charts
from app.jobs import tasks
from app.jobs.estimate import Estimator
from app.session import live_experiment, state, visitor_jobs
from app.session.live_experiment import Live
from app.views.experiments import results
from pruning.artifacts.cell import Cell, Latency, TextScore
from pruning.artifacts.events import Progress, stop_if
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import ModelChoice
from pruning.experiments import facts
from pruning.experiments.base import EXPERIMENTS, recipe_of
from pruning.experiments.drawing import graph
from pruning.experiments.facts import PaperModel
from pruning.experiments.places import Place
from pruning.experiments.request import Request
from pruning.experiments.result import Result
from pruning.experiments.table import result_of
from pruning.utils.errors import UsageError
from tests.helpers import ROOT
from tests.helpers.finished_jobs import add
from tests.helpers.stand_ins import (
    OWNER,
    at_address,
    button,
    draft_of,
    labelled,
    page_file,
    wait_for,
    words,
)
from tests.helpers.stand_ins import charts as drawn

SHAPE = state.demo_measurement().shape
PAGE = str(ROOT / "app" / page_file("experiments"))
QUICK = Request(quick=True)
SETTING = "25% of pruned blocks"


def cell(recipe, perplexity):
    return Cell(
        model="demo",
        dtype="float32",
        device="cpu",
        recipe=None if recipe is None else recipe.model_dump(mode="json"),
        kept=1.0 if recipe is None else 0.75,
        parameters=1000,
        macs_per_token=2000,
        heads=270,
        heads_removed=0,
        recovery=None,
        latency=Latency(100.0, 20.0, 128, 8, 3, 2),
        texts=(TextScore("sample", perplexity, 3.0, "sample (test), tokenised once."),),
        zero_shot=None,
        seconds=2.0,
        peak_memory_bytes=1 << 30,
        versions={"headroom": "0"},
        made="2026-11-26T00:00:00+00:00",
    )


def pairs(name="table2", scores=(50.0, 70.0, None, 60.0)):
    """The dense cell and those of the first methods."""
    found = [(Place("Dense", "", "Dense", None), cell(None, scores[0]))]
    for method, score in zip(EXPERIMENTS[name].methods, scores[1:], strict=False):
        recipe = recipe_of(method, Recipe().changed(seed=7))
        found.append(
            (Place(method.label, SETTING, method.paper_label, recipe), cell(recipe, score))
        )
    return found


def table(found, name="table2"):
    return result_of(EXPERIMENTS[name], QUICK, "demo", SHAPE, found)


@pytest.fixture
def experimenting(engine, monkeypatch):
    """Plays the work: two cells, then it waits at the gate, then the other two."""
    asked = []

    def make(store, choice, device, experiment, request, on_result):
        asked.append((choice.source, experiment.name, request))

        def run(progress, should_cancel):
            on_result(table(pairs()[:2], "table2"))
            progress(Progress("reproduce", 2, 33, "L1 norm: block 3"))
            while not engine.gate.wait(0.01):
                stop_if(should_cancel)
            on_result(table(pairs(), "table2"))

        return run

    monkeypatch.setattr(tasks, "experimenting", make)
    return asked


def started(at):
    button(at, "Start").click().run()
    job = visitor_jobs.manager().of(OWNER, "experiment")[-1]
    wait_for(lambda: job.request.result is not None)
    at.run()
    return job


def test_every_experiment_says_what_it_will_cost(visit, engine):
    at = visit("experiments")
    assert not at.exception and "With few items per task" in words(at)
    choice = labelled(at.radio, "Experiment")
    assert [option.split(",")[0] for option in choice.options][:3] == [
        "Table 1",
        "Table 2",
        "Table 3",
    ]
    captions = list(choice.proto.captions)
    assert "33 cells, about" in captions[1] and "One measurement, about" in captions[6]
    quick = captions[1]
    labelled(at.button_group, "Amount").set_value("paper").run()
    full = labelled(at.radio, "Experiment").proto.captions[1]
    assert not at.exception and full != quick and re.search(r" h\b", full)
    assert "About" in words(at)
    at = at_address(PAGE, **{"experiment.model": "someone/model"})
    assert "time is not known before" in words(at)
    assert "about" not in "".join(labelled(at.radio, "Experiment").proto.captions)


def test_estimates_grow_with_what_is_asked():
    estimator = Estimator(3e11)

    def seconds(name, **request):
        return estimator.of_experiment(EXPERIMENTS[name], Request(**request), "demo", SHAPE)

    assert seconds("figure5", quick=True) < seconds("table3", quick=True)
    assert 5 * seconds("table2", quick=True) < seconds("table2")
    asked = seconds("table1", quick=True, limit=40)
    assert asked > 1.3 * seconds("table1", quick=True, tasks=False)


def test_a_table_grows_while_it_is_computed_and_a_cell_opens_its_recipe(
    visit, engine, experimenting
):
    at = visit("experiments")
    labelled(at.radio, "Experiment").set_value("table2").run()
    labelled(at.number_input, "Windows").set_value(4).run()
    job = started(at)
    assert experimenting == [("demo", "table2", Request(quick=True, windows=4))]
    assert not at.exception and len(at.dataframe[0].value) == 2
    assert button(at, "Start").disabled and button(at, "Cancel")
    assert not at.get("download_button")
    engine.gate.set()
    wait_for(lambda: not job.active)
    at.run()
    assert not at.exception and at.dataframe[0].value["sample"].tolist()[:2] == [50.0, 70.0]
    assert at.dataframe[0].value["prefill ms"].tolist() == [100.0] * 4
    assert len(at.get("download_button")) == 4
    looks = json.loads(at.dataframe[0].proto.columns)
    assert [name for name, look in looks.items() if look.get("hidden")] == ["_index"]
    at.session_state[f"experiment.table.{job.id}"] = {"selection": {"rows": [3], "columns": []}}
    at.run()
    button(at, "Open the recipe of L2 norm, 25% of pruned blocks on Prune").click().run()
    assert draft_of(at) == pairs()[3][0].recipe


def test_what_was_cancelled_is_resumed(visit, engine, experimenting):
    at = visit("experiments")
    labelled(at.radio, "Experiment").set_value("table2").run()
    job = started(at)
    button(at, "Cancel").click().run()
    wait_for(lambda: not job.active)
    at.run()
    assert not at.exception and "Cancelled" in words(at) and "2 rows so far" in words(at)
    assert len(at.get("download_button")) == 4  # of what there is
    labelled(at.number_input, "Seed").set_value(3).run()
    assert button(at, "Start")  # that is another one
    labelled(at.number_input, "Seed").set_value(0).run()
    engine.gate.set()
    button(at, "Resume").click().run()
    again = visitor_jobs.manager().of(OWNER, "experiment")[-1]
    assert again is not job and experimenting[0] == experimenting[-1]
    wait_for(lambda: not again.active)
    assert len(again.request.result.rows) == 4


def test_a_reloaded_page_shows_the_experiment_of_its_address(visit, engine, experimenting):
    at = visit("experiments")
    labelled(at.radio, "Experiment").set_value("table2").run()
    assert at.query_params["experiment.name"] == "table2"
    job = started(at)
    again = at_address(job=job.id, **{"experiment.name": "table2"})
    again.switch_page(page_file("experiments")).run()
    assert not again.exception and len(again.dataframe[0].value) == 2
    assert labelled(again.radio, "Experiment").value == "table2"


def test_paths_and_tasks_are_refused_in_one_sentence(visit, engine, experimenting, monkeypatch):
    at = at_address(PAGE, **{"experiment.model": "/etc/model"})
    button(at, "Start").click().run()
    assert "outside the folders" in at.error[0].value and not experimenting
    at = visit("experiments")
    for wrong in ({"calibration": "/etc/passwd"}, {"texts": ("sample", "/etc/passwd")}):
        with pytest.raises(UsageError, match="outside the folders"):
            live_experiment.check(Live("table2", ModelChoice(), Request(**wrong)))
    monkeypatch.setattr("pruning.artifacts.zero_shot.find_spec", lambda name: None)
    button(at, "Start").click().run()
    assert at.error[0].value == "Zero-shot tasks need lm_eval; run: pip install 'headroom[eval]'."
    labelled(at.checkbox, "Zero-shot tasks").uncheck().run()
    button(at, "Start").click().run()
    assert experimenting == [("demo", "table1", Request(quick=True, tasks=False))]


def test_the_server_says_where_the_rows_of_tasks_are(visit, engine, experimenting, monkeypatch):
    monkeypatch.setenv("HEADROOM_TASK_DATA", "/data/rows")
    at = visit("experiments")
    button(at, "Start").click().run()
    assert experimenting[0][2].task_data == "/data/rows"


def test_the_paper_is_a_grey_mark_beside_ours(monkeypatch):
    llama = PaperModel("GPT-2", ("demo",), 30, 576)
    monkeypatch.setattr(facts, "_MODELS", (llama,))
    found = pairs()
    renamed = [
        (
            place,
            Cell(
                **{
                    **vars(c),
                    "texts": (TextScore("wikitext2", *list(vars(c.texts[0]).values())[1:]),),
                }
            ),
        )
        for place, c in found
    ]
    request = Request(quick=True, texts=("wikitext2",))
    result = result_of(EXPERIMENTS["table2"], request, "demo", SHAPE, renamed)
    chart = charts.methods(result, SETTING, "wikitext2")
    here, paper, dense = chart.series
    assert (here.x, here.ids) == ([70.0, 60.0], ["cell:1", "cell:3"])
    assert paper.colour == "#8C8C8C" and len(paper.x) == 3 and "paper: " in paper.words[0]
    assert dense.name == "dense, 50" and "No finite value: L1 norm" in chart.alt
    assert "L2 norm is best" in chart.alt
    names = results._ordered(result.columns)
    assert names[names.index("wikitext2") + 1] == "paper wikitext2"


def test_lines_and_bars_of_the_other_figures():
    recipes = [Recipe().changed(calibration={"samples": n}) for n in (4, 8)]
    found = [(Place("Dense", "", "Dense", None), cell(None, 50.0))]
    found += [
        (Place("Ours", f"{n} samples", "", recipe, n), cell(recipe, 80.0 - n))
        for n, recipe in zip((4, 8), recipes, strict=True)
    ]
    chart = charts.along_samples(table(found, "figure4"), "sample")
    assert [(s.name, list(s.x), list(s.y)) for s in chart.series] == [
        ("Ours", [4, 8], [76.0, 72.0])
    ]
    assert chart.series[0].ids == ["cell:1", "cell:2"]


def figure(name, columns, rows, drawings=()):
    """A finished experiment of the visitor that only measures."""
    about = {"title": EXPERIMENTS[name].title, "model": "demo", "paper_model": None, "quick": True}
    words = {"shows": "", "protocol": "sample, 8 windows.", "notes": ()}
    found = {"columns": columns, "rows": tuple(rows), "drawings": tuple(drawings)}
    result = Result(name=name, **about, **words, **found)
    add("experiment", result, Live(name, ModelChoice(), QUICK, [result]))


def test_figures_that_only_measure(visit, engine):
    means = [
        {"tensor": tensor, "block": place, "signed mean": -0.1, "absolute mean": 0.5 + n}
        for tensor in ("input", "output")
        for n, place in enumerate(("all", "0", "1"))
    ]
    figure("figure5", ("tensor", "block", "signed mean", "absolute mean"), means)
    pairs = [{"block": 4, "head": 0, "like": 1, "divergence, nats": 0.1}]
    figure("figure3", tuple(pairs[0]), pairs, [graph("t", [(0, 0), (1, 1)], [(0, 1, 0.1)], [1])])
    at = visit("experiments")
    labelled(at.radio, "Experiment").set_value("figure5").run()
    assert not at.exception and len(drawn(at)) == 1
    bars, points = json.loads(drawn(at)[0].spec)["data"]
    assert bars["y"] == [1.5, 2.5] and points["y"] == [-0.1, -0.1]
    assert not [item for item in at.button if "recipe" in item.label]
    labelled(at.radio, "Experiment").set_value("figure3").run()
    assert not at.exception and len(at.image) == 1
    assert at.dataframe[0].value["divergence, nats"].tolist() == [0.1]
