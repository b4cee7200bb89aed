"""Extensions that are YAML files: a preset and an experiment, right and wrong."""

from __future__ import annotations

import pytest

from pruning import registries
from pruning.api import from_memory
from pruning.artifacts.recipe import Recipe
from pruning.experiments.run import Request, run_experiment
from pruning.presets import with_preset
from pruning.utils.errors import BrokenExtension
from tests.helpers import families

PRESET = """\
name: gentle
title: Gentle
summary: Made by a test.
source: this test
place: 5
settings:
  ffn: {score: taylor_vector}
  recovery: {method: bias}
"""


def test_a_preset(drop_in):
    drop_in(registries.PRESETS, "gentle.yaml", PRESET)
    recipe = with_preset(Recipe.parse({"ffn": {"ratio": 0.2}, "allocation": "adaptive"}), "gentle")
    assert (recipe.ffn.score, recipe.ffn.ratio) == ("taylor_vector", 0.2)
    assert (recipe.recovery.method, recipe.allocation) == ("bias", "uniform")
    entry = registries.PRESETS.entry("gentle")
    assert (entry.title, entry.cost, entry.place) == ("Gentle", "reads gradients", 5)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("place: 5", "price: 5", "price: "),
        ("title: Gentle\n", "", "title: "),
        ("taylor_vector", "taylor_victor", "did you mean 'taylor_vector'"),
        ("{method: bias}", "{methods: bias}", "recovery.methods"),
        ("recovery: {method: bias}", "recovered: {method: bias}", "recovered"),
        ("score: taylor_vector", "ratio: 0.5", "ffn is among what a preset leaves alone"),
        ("ffn: {score: taylor_vector}", "seed: 3", "seed is among what a preset leaves alone"),
        ("settings:", "settings", "not valid YAML"),
        (PRESET, "", "the whole file"),
    ],
)
def test_a_preset_that_is_wrong_is_one_sentence(drop_in, before, after, reason):
    assert before in PRESET
    where = drop_in(registries.PRESETS, "gentle.yaml", PRESET.replace(before, after))
    with pytest.raises(BrokenExtension) as caught:
        registries.PRESETS.names()
    message = str(caught.value)
    assert str(where) in message and reason in message and "\n" not in message
    where.write_text(PRESET)
    assert "gentle" in registries.PRESETS


EXPERIMENT = """
like: table2
name: mine
title: Mine
summary: One method at one size.
source: this test
sizes: {a third: 0.33}
methods: [{label: Magnitude, preset: l2, changes: {seed: 4}, paper: ""}]
"""


def test_an_experiment(drop_in, tmp_path, monkeypatch, tokenizer):
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path))
    where = drop_in(registries.EXPERIMENTS, "mine.yaml", EXPERIMENT)
    with pytest.raises(BrokenExtension, match="table2.yaml"):
        registries.EXPERIMENTS.names()  # 'like' names a file beside it
    where.write_text(EXPERIMENT.replace("like: table2\n", "quick: {texts: [sample]}\n"))
    assert registries.EXPERIMENTS.entry("mine").title == "Mine"
    model = families.llama_grouped(vocab_size=200)
    loaded = from_memory(model.eval(), tokenizer)
    request = Request(quick=True, calibration="random", windows=2)
    result = run_experiment(loaded, registries.EXPERIMENTS["mine"], request)
    assert [row["method"] for row in result.rows] == ["Dense", "Magnitude"]
    assert result.rows[1]["kept"] < 0.8 and result.cells[1].recipe["seed"] == 4


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("preset: l2", "preset: l3", "Unknown preset 'l3'"),
        ("seed: 4", "seeds: 4", "seeds"),
        ("sizes: {a third: 0.33}", "sizes: many", "sizes: "),
        ("source: this test", "quick: {windows: few}\nsource: x", "windows: "),
    ],
)
def test_an_experiment_that_is_wrong_is_one_sentence(drop_in, before, after, reason):
    text = EXPERIMENT.replace("like: table2\n", "").replace(before, after)
    where = drop_in(registries.EXPERIMENTS, "mine.yaml", text)
    with pytest.raises(BrokenExtension) as caught:
        registries.EXPERIMENTS.names()
    message = str(caught.value)
    assert str(where) in message and reason in message and "\n" not in message
