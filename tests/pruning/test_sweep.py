"""Sweeps: the points are those of single runs, and survive a cancel, a crash and a restart."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

import pruning
from pruning.artifacts.recipe import Recipe
from pruning.cli.base import COMMANDS
from pruning.cli.main import main
from pruning.evaluate import perplexity
from pruning.pipeline import prune
from pruning.sweep import PLAIN_CUT, Sweep, SweepPoint, sweep
from pruning.utils.errors import Cancelled, UsageError
from pruning.utils.files import cache_root

BASE = Recipe.parse({"calibration": {"samples": 8, "seq_len": 16}, "ffn": {"ratio": 0.25}})
TEXT = {"text": "sample", "seq_len": 16, "windows": 4}


@pytest.fixture(scope="module")
def tiny(model_folder):
    return pruning.load(str(model_folder), device="cpu")


@pytest.fixture(autouse=True)
def own_points(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "cache"))


def count_runs(monkeypatch) -> list[Recipe]:
    """Recipes that really are carried out from now on."""
    made: list[Recipe] = []

    def counted(loaded, recipe, **rest):
        made.append(recipe)
        return prune(loaded, recipe, **rest)

    monkeypatch.setattr("pruning.pipeline.prune", counted)
    return made


def test_a_point_is_a_run_and_its_perplexity(tiny):
    wanted = Sweep(BASE, "ratio", (0.2, 0.4), ("fast", "wanda_sp"), **TEXT)
    heard = []
    points = sweep(tiny, wanted, on_point=heard.append)
    assert heard == points and [p.preset for p in points] == ["dense"] + ["fast", "wanda_sp"] * 2
    assert [p.value for p in points[1:]] == [0.2, 0.2, 0.4, 0.4]
    run = prune(tiny, wanted.recipe_at("fast", 0.4))
    score = perplexity(run.pruned.model, tiny.tokenizer, "sample", seq_len=16, windows=4)
    assert points[3].perplexity == score.perplexity and points[3].protocol == score.protocol()
    assert points[3].kept == run.report.kept_block_parameters < points[1].kept < 1.0
    assert points[3].parameters == sum(p.numel() for p in run.pruned.model.parameters())
    assert points[3].recovery == run.report.recovery_check.kept
    assert points[0].recovery is None and points[4].recovery is None  # nothing to compare
    dense = perplexity(tiny.model, tiny.tokenizer, "sample", seq_len=16, windows=4)
    assert points[0].perplexity == dense.perplexity and points[0].kept == 1.0


@pytest.mark.parametrize(
    ("axis", "values", "field"), [("tau", (0.05, 0.5), "heads"), ("samples", (4, 8), "calibration")]
)
def test_other_axes_change_one_setting(tiny, axis, values, field):
    wanted = Sweep(BASE, axis, values, ("fast",), **TEXT)
    first, second = (wanted.recipe_at("fast", value) for value in values)
    assert first.ffn.ratio == 0.25 and getattr(first, field) != getattr(second, field)
    points = sweep(tiny, wanted)
    assert [p.value for p in points[1:]] == list(values)


def test_finished_points_are_not_computed_again(tiny, monkeypatch):
    made = count_runs(monkeypatch)
    first = sweep(tiny, Sweep(BASE, "ratio", (0.2,), ("fast",), **TEXT))
    more = sweep(tiny, Sweep(BASE, "ratio", (0.2, 0.4), ("fast",), **TEXT))
    assert len(made) == 2 and more[:2] == first
    sweep(tiny, Sweep(BASE.changed(seed=5), "ratio", (0.2,), ("fast",), **TEXT))
    sweep(tiny, Sweep(BASE, "ratio", (0.2,), ("fast",), **{**TEXT, "windows": 3}))
    assert len(made) == 4


def test_a_cancelled_sweep_goes_on_where_it_stopped(tiny, monkeypatch):
    wanted, done = Sweep(BASE, "ratio", (0.2, 0.4), ("fast", "wanda_sp"), **TEXT), []
    with pytest.raises(Cancelled):
        sweep(tiny, wanted, on_point=done.append, should_cancel=lambda: len(done) == 3)
    made = count_runs(monkeypatch)
    points = sweep(tiny, wanted)
    assert len(made) == 2 and points[:3] == done


def test_a_torn_file_costs_only_its_point(tiny, monkeypatch):
    wanted = Sweep(BASE, "ratio", (0.2, 0.4), ("fast",), **TEXT)
    before = sweep(tiny, wanted)
    files = sorted((cache_root() / "cells").glob("*.json"), key=lambda file: file.stat().st_mtime)
    assert len(files) == 3
    files[-1].write_text(files[-1].read_text()[:-30])
    made = count_runs(monkeypatch)
    again = sweep(tiny, wanted)
    assert len(made) == 1 and [p.perplexity for p in again] == [p.perplexity for p in before]
    sweep(tiny, wanted)
    assert len(made) == 1


def test_the_command_says_where_recovery_was_left_out():
    command = COMMANDS["sweep"]
    kept = SweepPoint("fast", 0.2, 20.0, 3.0, 0.8, 10, 1.0, "", "recovered")
    result = {"axis": "ratio", "protocol": "", "points": [asdict(kept)]}
    assert PLAIN_CUT not in command.text(result)
    result["points"].append(asdict(replace(kept, value=0.4, recovery="plain")))
    assert command.text(result).endswith(PLAIN_CUT)


def test_progress_counts_points(tiny):
    steps = []
    sweep(tiny, Sweep(BASE, "ratio", (0.2,), ("fast",), **TEXT), progress=steps.append)
    assert {step.stage for step in steps} == {"sweep"} and {step.total for step in steps} == {2}
    assert steps[-1].done == 2 and any("Fast at 0.2" in step.message for step in steps)


@pytest.mark.parametrize(
    "wrong",
    [
        {"axis": "colour"},
        {"values": ()},
        {"presets": ()},
        {"presets": ("magic",)},
        {"values": (1.0,)},
        {"axis": "tau", "values": (3.0,)},
        {"axis": "samples", "values": (2.5,)},
    ],
)
def test_wrong_use_is_refused_before_any_work(wrong):
    with pytest.raises(UsageError):
        Sweep(**{"recipe": BASE, "axis": "ratio", "values": (0.2,), "presets": ("fast",)} | wrong)


def test_the_command_prints_the_points(model_folder, capsys):
    text = ("--samples", "8", "--seq-len", "16", "--text-seq-len", "16", "--windows", "3")
    methods = ("--values", "0.2,0.4", "--presets", "fast,l2", "--device", "cpu")
    command = ["sweep", str(model_folder), *text, *methods]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    points = json.loads(out)["points"]
    assert len(points) == 5 and "[sweep] l2 at 0.4" in err
    assert main(command) == 0
    about, table, *_ = capsys.readouterr().out.split("\n\n")
    assert "axis: ratio" in about and "protocol: " in about
    header, *rows = table.splitlines()
    assert header.split()[:3] == ["preset", "value", "perplexity"]
    assert [row.split()[:2] for row in rows] == [
        [point["preset"], "-" if point["value"] is None else f"{point['value']:g}"]
        for point in points
    ]
    assert main(["sweep", str(model_folder), "--values", "0.2", "--presets", "magic"]) == 2
