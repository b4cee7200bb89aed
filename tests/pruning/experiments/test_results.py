"""What an experiment gives: tables, drawings and files, on the command line too."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from pruning.cli.main import main
from pruning.experiments import facts
from pruning.experiments.base import EXPERIMENTS
from pruning.experiments.drawing import GREY, Bar, bars, lines
from pruning.experiments.request import Request
from pruning.experiments.run import run_experiment
from pruning.experiments.table import result_of
from pruning.pipeline import measure_model
from pruning.planning.similarity import edges
from tests.helpers import families
from tests.helpers.experiments import GPT2, QUICK, few


def test_half_a_run_is_half_a_table(tiny):
    experiment, pairs, halves = few("table2", "Random", "L1 norm"), [], []

    def on_cell(*pair):
        pairs.append(pair)
        halves.append(result_of(experiment, QUICK, tiny.source, tiny.shape, pairs))

    whole = run_experiment(tiny, experiment, QUICK, on_cell=on_cell)
    assert [len(half.rows) for half in halves] == [1, 2, 3, 4, 5]
    assert halves[2].rows == whole.rows[:3] and halves[-1] == whole


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
    pytest.importorskip("lm_eval")
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
