"""Experiments: the grids say what the paper says, rows are those of single runs, and a
finished cell is never computed again, whatever ends the process."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from dataclasses import replace

import pytest

import pruning
from pruning.api import from_memory
from pruning.cli.main import main
from pruning.evaluate import latency, perplexity, task_sources, zero_shot
from pruning.evaluate.cost import macs_per_token
from pruning.experiments import cells as cells_module
from pruning.experiments import facts
from pruning.experiments.base import EXPERIMENTS, Blocks, recipe_of
from pruning.experiments.cells import CellStore
from pruning.experiments.drawing import GREY, Bar, bars, lines
from pruning.experiments.executors import local as local_module
from pruning.experiments.facts import PaperModel, _facts, paper_model, paper_values
from pruning.experiments.places import expected_recipes, places
from pruning.experiments.request import Request, adapted, protocol_for
from pruning.experiments.run import run_experiment
from pruning.experiments.table import result_of
from pruning.pipeline import measure_model, prune
from pruning.planning.similarity import edges
from pruning.sweep import Sweep, sweep
from pruning.utils.errors import Cancelled
from tests.helpers import families
from tests.helpers.task_rows import write_rows

GPT2 = PaperModel("GPT-2", ("gpt2",), 6, 48, (0, 6), 48)
QUICK = Request(quick=True, windows=2)


@pytest.fixture(scope="module")
def tiny(tokenizer):
    """Six blocks of six heads on two key/value heads."""
    model = families.llama_grouped(vocab_size=200, num_hidden_layers=6)
    families.randomise(model, 3)
    return from_memory(model.eval(), tokenizer)


@pytest.fixture(autouse=True)
def own_cells(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "cache"))


def few(name, *labels):
    """An experiment with only some of its methods."""
    found = EXPERIMENTS[name]
    chosen = tuple(m for m in found.methods if m.label in labels)
    assert len(chosen) == len(labels)
    return found.model_copy(update={"methods": chosen})


def counted(monkeypatch):
    """The recipes of cells that are really computed from now on."""
    made = []

    def compute(loaded, recipe, *rest, **more):
        made.append(recipe)
        return cells_module.compute_cell(loaded, recipe, *rest, **more)

    monkeypatch.setattr(local_module, "compute_cell", compute)
    return made


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "table4", "table5", "table6"])
def test_every_row_that_claims_a_value_of_the_paper_has_one(name):
    experiment = EXPERIMENTS[name]
    rows = {
        (row["method"], row["sparsity"]) for row in _facts() if row["table"] in experiment.table
    }
    for method in experiment.methods:
        if method.paper_label and not method.label.startswith("Ours (τ"):
            assert method.paper_label in {label for label, _ in rows}
    settings = {setting for _, setting in rows}
    if name != "table3":
        assert set(experiment.sizes) <= settings


def test_values_of_the_paper_belong_to_its_models_alone(tiny):
    shape = tiny.adapter.model_shape(tiny.model)
    assert paper_model("openai-community/gpt2", shape) is None
    right = replace(shape, hidden_size=768, blocks=shape.blocks * 2)
    gpt2 = paper_model("openai-community/gpt2", right)
    assert gpt2.name == "GPT-2" and gpt2.blocks == (0, 12) and gpt2.seq_len == 1024
    assert paper_model("someone/gpt2-imdb", right) is None
    half = "50% of pruned blocks"
    found = paper_values(("2",), gpt2, half, "FLAP AL-AM w/ remedy")
    assert found == {"wikitext2": 5382.14, "ptb": 7476.08}
    tables = ("figure 4A", "figure 4B")
    assert paper_values(tables, gpt2, "32 samples", "Ours, 32 samples")["ptb"] == 131
    assert paper_values(("2",), None, half, "Random") == {}
    llama = paper_model("huggyllama/llama-7b", replace(shape, hidden_size=4096, blocks=(1,) * 32))
    row = paper_values(("1",), llama, "20% of the model", "Random")
    assert row["boolq"] == 0.4621 and row["mean"] == 0.4995 and row["ptb"] == 40.19


def test_blocks_keep_their_share_of_the_depth():
    paper = Blocks(start=4, end=30, of=32)
    assert paper.among(32) == range(4, 30) and paper.among(30) == range(4, 28)
    assert paper.among(2) == range(0, 2) and paper.among(1) == range(0, 1)


def test_rows_are_those_of_single_runs(tiny):
    experiment = few("table2", "L2 norm", "FLAP AL-AM w/ remedy", "Ours UL-UM w/ remedy")
    heard = []
    result = run_experiment(tiny, experiment, QUICK, on_cell=lambda *pair: heard.append(pair))
    assert [row["method"] for row in result.rows[:2]] == ["Dense", "L2 norm"]
    assert len(heard) == len(result.rows) == 7
    for (place, cell), row in zip(heard, result.rows, strict=True):
        model = tiny.model if place.recipe is None else prune(tiny, place.recipe).pruned.model
        score = perplexity(model, tiny.tokenizer, "sample", seq_len=48, windows=2)
        assert row["sample"] == score.perplexity == cell.texts[0].perplexity
        assert row["parameters"] == sum(p.numel() for p in model.parameters())
        assert row["MACs/token"] == macs_per_token(model, 48)
        assert 0 < row["decode ms"] and 0 < row["prefill ms"] < 1000 * row["seconds"]
        assert (cell.latency.prompt_tokens, cell.latency.new_tokens) == (40, 8)  # 48 positions
        assert not any(name.startswith("paper ") for name in row)
    recipes = {(p.method, p.setting): p.recipe for p, _ in heard}
    ours = recipes["Ours UL-UM w/ remedy", "25% of pruned blocks"]
    assert (ours.blocks.start, ours.blocks.end) == (1, 6) and ours.recovery.samples == 32
    flap = recipes["FLAP AL-AM w/ remedy", "25% of pruned blocks"]
    assert (flap.blocks.start, flap.blocks.end) == (0, 6)
    assert flap.budget.kept == ours.budget.kept and flap.allocation == "adaptive"
    assert not (flap.recovery.keep_better or ours.recovery.keep_better)  # as the method is
    assert "a prompt of 40 tokens" in result.protocol


def test_what_takes_as_long_is_known_without_a_model(tiny):
    """Recipes for an estimate: those of the run where they need no measurement."""
    sampling = adapted(EXPERIMENTS["table2"], QUICK, tiny.source, tiny.shape)
    for name in ("table2", "figure4"):
        experiment = EXPERIMENTS[name]
        how = {"quick": True, "known": None, "seed": 3}
        real = [place.recipe for place in places(experiment, tiny, sampling, **how)]
        expected = expected_recipes(experiment, sampling, 6, **how)
        assert expected[0] is None and len(expected) == len(real)
        model = {"source": tiny.source, "dtype": "float32"}
        assert [each.changed(model=model) for each in expected[1:]] == real[1:]
    heads = expected_recipes(EXPERIMENTS["table3"], sampling, 6, **how)
    assert len(heads) == 13 and [recipe.recovery.method for recipe in heads[1:6]] == [
        "none", "none", "none", "none", "bias"
    ]  # fmt: skip


def test_blocks_that_wait_elsewhere_are_not_timed(model_folder):
    offloaded = pruning.load(str(model_folder), device="cpu", placement="memory")
    assert latency(offloaded, 16) is None
    assert latency(pruning.load(str(model_folder), device="cpu"), 16).prompt_tokens == 16


def test_half_a_run_is_half_a_table(tiny):
    experiment, pairs, halves = few("table2", "Random", "L1 norm"), [], []

    def on_cell(*pair):
        pairs.append(pair)
        halves.append(result_of(experiment, QUICK, tiny.source, tiny.shape, pairs))

    whole = run_experiment(tiny, experiment, QUICK, on_cell=on_cell)
    assert [len(half.rows) for half in halves] == [1, 2, 3, 4, 5]
    assert halves[2].rows == whole.rows[:3] and halves[-1] == whole


def test_heads_alone_go_in_equal_numbers(tiny):
    result = run_experiment(tiny, EXPERIMENTS["table3"], QUICK)
    for setting in dict.fromkeys(row["setting"] for row in result.rows[1:]):
        rows = [row for row in result.rows if row["setting"] == setting]
        assert len(rows) == 6 and len({row["heads removed"] for row in rows}) == 1
        assert rows[0]["heads removed"] % 3 == 0 and rows[0]["heads removed"] > 0
        assert rows[0]["method"].startswith("Ours (τ=")
    assert all(cell.recipe is None or cell.recipe["ffn"]["ratio"] == 0 for cell in result.cells)
    assert len({row["sample"] for row in result.rows}) > 6


def test_samples_are_an_axis_of_their_own(tiny):
    experiment = few("figure4", "Ours w/o recovery", "Ours w/ recovery")
    result = run_experiment(tiny, experiment, QUICK)
    assert [row["setting"] for row in result.rows[1::2]] == [f"{n} samples" for n in (4, 8, 16, 32)]
    samples = [cell.recipe["calibration"]["samples"] for cell in result.cells[1:]]
    assert samples == [4, 4, 8, 8, 16, 16, 32, 32]
    assert result.drawings[0].count("<polyline") == 2


def test_tasks_stand_beside_perplexity(tiny, tmp_path):
    folder = write_rows(tmp_path / "tasks")
    experiment = few("table1", "Ours (Calibration)").model_copy(update={"tasks": ("boolq", "piqa")})
    request = Request(quick=True, windows=2, task_data=str(folder), limit=5)
    result = run_experiment(tiny, experiment, request)
    pruned = prune(tiny, recipe_from(result.cells[1])).pruned
    direct = zero_shot(pruned, task_sources(("boolq", "piqa"), folder), limit=5)
    row = result.rows[1]
    assert [row["boolq"], row["piqa"]] == [score.accuracy for score in direct.scores]
    assert row["mean"] == direct.mean and row["piqa ±"] == direct.scores[1].stderr
    assert "lm_eval" in result.protocol and len(result.drawings) == 2


def recipe_from(cell):
    from pruning.artifacts.recipe import Recipe

    return Recipe.parse(cell.recipe)


def test_a_finished_cell_is_never_computed_again(tiny, monkeypatch):
    experiment, made = few("table2", "Random", "L1 norm"), counted(monkeypatch)
    done = []
    with pytest.raises(Cancelled):
        run_experiment(
            tiny,
            experiment,
            QUICK,
            on_cell=lambda *pair: done.append(pair),
            should_cancel=lambda: len(done) == 2,
        )
    assert len(made) == 2
    first = run_experiment(tiny, experiment, QUICK)
    assert len(made) == 5
    again = run_experiment(tiny, experiment, QUICK)
    assert len(made) == 5 and again.rows == first.rows
    # a row more costs that row, other text costs everything
    run_experiment(tiny, few("table2", "Random", "L1 norm", "L2 norm"), QUICK)
    assert len(made) == 7
    run_experiment(tiny, experiment, Request(quick=True, windows=1))
    assert len(made) == 12


def test_a_kill_loses_at_most_one_cell(tiny, monkeypatch):
    experiment, seen = few("table2", "Random", "L1 norm"), []
    child = os.fork()
    if child == 0:

        def die(place, cell):
            seen.append(place)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            run_experiment(tiny, experiment, QUICK, on_cell=die)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    made = counted(monkeypatch)
    result = run_experiment(tiny, experiment, QUICK)
    assert len(made) == 2 and len(result.rows) == 5


def test_a_torn_cell_is_computed_again(tiny, monkeypatch):
    experiment = few("table2", "Random")
    run_experiment(tiny, experiment, QUICK)
    store = CellStore(tiny, protocol_for(experiment, QUICK, 48))
    path = store.path(None)
    path.write_text(path.read_text()[:40])
    made = counted(monkeypatch)
    run_experiment(tiny, experiment, QUICK)
    assert made == [None]


def test_sweeps_and_experiments_share_their_cells(tiny, monkeypatch):
    run_experiment(tiny, few("table2", "Random"), QUICK)
    made = []
    monkeypatch.setattr(local_module, "compute_cell", lambda *a, **k: made.append(a))
    base = families.recipe()
    wanted = Sweep(base, "ratio", (0.2,), ("random",), text="sample", seq_len=48, windows=2)
    with pytest.raises(AttributeError):  # the second point has to be computed, the dense one not
        sweep(tiny, wanted)
    assert [recipe is None for _, recipe, *_ in made] == [False]


def test_files_hold_everything_and_ask_for_nothing(tiny, tmp_path):
    result = run_experiment(tiny, few("table2", "Random"), QUICK)
    files = {path.suffix: path.read_text(encoding="utf-8") for path in result.write(tmp_path)}
    rows = list(csv.DictReader(io.StringIO(files[".csv"])))
    assert [float(row["sample"]) for row in rows] == [row["sample"] for row in result.rows]
    data = json.loads(files[".json"])
    cell = data["rows"][1]["cell"]
    assert cell["recipe"]["seed"] == 0 and cell["versions"]["torch"] and cell["seconds"] > 0
    assert cell["peak_memory_bytes"] > 0 and "2 consecutive windows" in cell["texts"][0]["protocol"]
    assert "A quick run" in files[".md"] and "| Random |" in files[".md"]
    page = files[".html"].replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in page and "https:" not in page and "src=" not in page
    assert page.count("<svg") == 2 and "quick run" in page


def test_a_text_may_have_a_name(tiny, tmp_path, monkeypatch):
    path = tmp_path / "some words.txt"
    path.write_text(families.SAMPLE.read_text())
    request = Request(quick=True, windows=1, texts=(f"wikitext2={path}", str(path), "sample"))
    monkeypatch.setattr(facts, "_MODELS", (replace(GPT2, ids=(tiny.source,)),))
    result = run_experiment(tiny, few("table2", "Random"), request)
    row = result.rows[1]
    assert row["wikitext2"] == row["some words.txt"] != row["sample"]
    assert row["paper wikitext2"] == 189.73 and row["paper ptb"] == 245.33
    assert f"{row['wikitext2']:.4g} (189.7)" in result.to_markdown()
    assert GREY in result.drawings[0] and GREY not in result.drawings[2]


def test_the_paper_stands_beside_its_own_model(tiny):
    result = run_experiment(tiny, few("table2", "Random"), QUICK)
    rows = tuple({**row, "paper sample": 12.5} for row in result.rows)
    shown = replace(
        result, rows=rows, paper_model="GPT-2", columns=(*result.columns, "paper sample")
    )
    assert "(12.5)" in shown.to_markdown() and "none of its models" not in shown.to_markdown()
    assert GREY in bars("t", "", [Bar("a", 3.0, 4.0)])
    assert GREY not in bars("t", "", [Bar("a", 3.0), Bar("b", None)])
    assert GREY in lines("t", "x", {"ours": [(1, 2.0)], "paper: ours": [(1, 2.0), (4, 3.0)]})


def test_figures_are_what_was_measured(tiny):
    found = run_experiment(
        tiny, EXPERIMENTS["figure3"].model_copy(update={"tau": {"graph": 0.5}}), QUICK
    )
    settings = {"source": "sample", "samples": 8, "seq_len": 48}
    measured = measure_model(tiny, families.recipe().changed(calibration=settings, seed=0))
    pairs = [edges(measured.blocks[index].divergence, 0.5) for index in (1, 2)]
    assert len(found.rows) == sum(map(len, pairs)) > 0
    assert {(row["head"], row["like"]) for row in found.rows if row["block"] == 1} == {
        (i, j) for i, j, _ in pairs[0]
    }
    assert found.drawings[0].count("<circle") == 6
    means = run_experiment(tiny, EXPERIMENTS["figure5"], QUICK)
    by_place = {(row["tensor"], row["block"]): row for row in means.rows}
    summary = measured.blocks[2].activations["ffn"]
    row = by_place["input of the FFN's second layer", "2"]
    assert row["signed mean"] == pytest.approx(summary.mean, rel=1e-5)
    assert row["absolute mean"] == pytest.approx(summary.mean_absolute, rel=1e-5)
    assert len(means.rows) == 21


def test_the_command_writes_its_files_and_refuses_in_one_sentence(
    model_folder, tmp_path, capsys, monkeypatch
):
    words = ["reproduce", "figure3", str(model_folder), "--device", "cpu", "--quick"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "quick run" in out and str(tmp_path / "out" / "figure3.html") in out
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [
        ".csv",
        ".html",
        ".json",
        ".md",
    ]

    both = ["figure5", str(model_folder), "--also", str(model_folder), "--quick", "--json"]
    assert main(["reproduce", *both, "--device", "cpu", "--out", str(tmp_path / "five")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == 2 * 3 * 4 and found["columns"][0] == "model"

    def refused(*more):
        status = main(["reproduce", *more])
        last = capsys.readouterr().err.splitlines()[-1]
        assert status in (1, 2) and len(last) < 311 and last.startswith("headroom: ")
        return last

    one = refused("table2", str(model_folder), "--also", str(model_folder), "--quick")
    assert "table2 is of one model" in one
    assert "did you mean 'table2'" in refused("table22", str(model_folder))
    absent = refused("table2", str(model_folder), "--quick", "--texts", str(tmp_path / "no.txt"))
    assert "neither a corpus name nor a file" in absent
    empty = ("table1", str(model_folder), "--quick", "--task-data", str(tmp_path))
    assert "holds no boolq.jsonl" in refused(*empty)
    monkeypatch.setattr("datasets.load_dataset", _no_network)
    assert "check the network" in refused("table2", str(model_folder))
    assert "check the network" in refused("table1", str(model_folder), "--quick")


def _no_network(*_, **__):
    raise ConnectionError("Couldn't reach the Hub")


def test_presets_of_every_row_can_be_made():
    for entry in EXPERIMENTS:
        for method in entry.value.methods:
            assert recipe_of(method, families.recipe()).heads.score
