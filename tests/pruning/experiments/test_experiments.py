"""Experiments: the grids say what the paper says, and rows are those of single runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

import pruning
from pruning.evaluate import latency, perplexity, task_sources, zero_shot
from pruning.evaluate.cost import macs_per_token
from pruning.experiments.base import EXPERIMENTS, Blocks, recipe_of
from pruning.experiments.facts import _facts, paper_model, paper_values
from pruning.experiments.places import expected_recipes, places
from pruning.experiments.request import Request, adapted
from pruning.experiments.run import run_experiment
from pruning.pipeline import prune
from tests.helpers import families
from tests.helpers.experiments import QUICK, few
from tests.helpers.task_rows import write_rows


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
    pytest.importorskip("lm_eval")
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


def test_presets_of_every_row_can_be_made():
    for entry in EXPERIMENTS:
        for method in entry.value.methods:
            assert recipe_of(method, families.recipe()).heads.score
