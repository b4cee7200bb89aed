"""The recipe: read and written without loss; every mistake is one clear line."""

from __future__ import annotations

import json
import math

import pytest

from pruning.artifacts.recipe import Recipe
from pruning.artifacts.recovery_rule import ENOUGH_WINDOWS
from pruning.utils.errors import UsageError

FULL = {
    "model": {"source": "some/model", "revision": "abc", "dtype": "bfloat16"},
    "calibration": {
        "source": "wikitext2",
        "text_field": "abstract",
        "bos": "first",
        "samples": 16,
        "seq_len": 64,
        "curve_samples": 8,
        "gradient_samples": 4,
        "gradient_seq_len": 32,
    },
    "blocks": {"start": 3, "end": 28},
    "heads": {
        "threshold": 0.16,
        "ratio": 0.25,
        "score": "second_moment_exact",
        "policy": "kv_group",
        "drop": "first",
    },
    "ffn": {"ratio": 0.267, "score": "second_moment", "multiple": 8},
    "budget": {"kept": 0.8, "of": "model", "megabytes": None, "spare_heads": True},
    "allocation": "by_hand",
    "by_hand": {3: {"heads": 0.1, "ffn": 0.2}},
    "marks": {4: {"keep": (1,), "drop": (0, 7)}},
    "recovery": {
        "method": "full",
        "target": "dense",
        "in_proj": "keep",
        "keep_better": False,
        "damping": 0.3,
        "rescore": False,
        "choice": "elimination",
        "intercept": "add",
        "scope": "pruned",
        "samples": 64,
        "copies": 2,
        "compute": "bfloat16",
    },
    "tune": {
        "method": "lora",
        "epochs": 2,
        "learning_rate": 0.003,
        "batch": 4,
        "rank": 8,
        "keep_better": False,
    },
    "seed": 7,
}


@pytest.mark.parametrize("data", [{}, FULL, {"ffn": {"ratio": 0.1}}])
def test_yaml_round_trip(data, tmp_path):
    recipe = Recipe.parse(data)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert Recipe.read(tmp_path / "recipe.yaml") == recipe


def test_every_given_value_arrives():
    dumped = Recipe.parse(FULL).model_dump()
    assert dumped == {"version": 1, **FULL}


def test_json_is_yaml_too_and_an_empty_file_is_the_default():
    assert Recipe.from_yaml(json.dumps(FULL)) == Recipe.parse(FULL)
    with pytest.raises(UsageError, match="empty"):
        Recipe.from_yaml("# nothing\n")


BAD = {
    "an unknown section": ("colour: red", "colour"),
    "an unknown field": ("ffn: {ration: 0.2}", "ffn.ration"),
    "a head kept and dropped": ("marks: {3: {keep: [1, 2], drop: [2]}}", "marks.3"),
    "a negative head": ("marks: {3: {keep: [-1]}}", "marks.3.keep"),
    "a mark that is no head": ("marks: {3: {drop: [a]}}", "marks.3.drop"),
    "marks of a negative block": ("marks: {-1: {keep: [1]}}", "marks"),
    "a mark of another kind": ("marks: {3: {maybe: [1]}}", "marks.3.maybe"),
    "tau of zero": ("heads: {threshold: 0}", "heads.threshold"),
    "negative tau": ("heads: {threshold: -0.1}", "heads.threshold"),
    "tau above ln 2": ("heads: {threshold: 0.7}", "heads.threshold"),
    "tau that is no number": ("heads: {threshold: .nan}", "heads.threshold"),
    "ratio of one": ("ffn: {ratio: 1.0}", "ffn.ratio"),
    "negative ratio": ("heads: {ratio: -0.1}", "heads.ratio"),
    "ratio as text": ("ffn: {ratio: half}", "ffn.ratio"),
    "unknown head criterion": ("heads: {score: magic}", "magic"),
    "unknown channel criterion": ("ffn: {score: magic}", "second_moment_exact"),
    "unknown allocation": ("allocation: magic", "uniform"),
    "unknown recovery": ("recovery: {method: magic}", "refit"),
    "unknown policy": ("heads: {policy: all}", "heads.policy"),
    "unknown dtype": ("model: {dtype: int8}", "model.dtype"),
    "empty range": ("blocks: {start: 5, end: 5}", "greater than the start"),
    "negative start": ("blocks: {start: -1}", "blocks.start"),
    "no samples": ("calibration: {samples: 0}", "calibration.samples"),
    "one token": ("calibration: {seq_len: 1}", "calibration.seq_len"),
    "negative seed": ("seed: -1", "seed"),
    "no damping": ("recovery: {damping: 0}", "recovery.damping"),
    "the future": ("version: 2", "version 2"),
    "version as text": ("version: new", "'new'"),
    "a list": ("- 1\n- 2", "mapping"),
    "a word": ("hello", "mapping"),
    "a section that is a number": ("ffn: 3", "ffn"),
    "a key that is a number": ("1: 2", "1"),
    "broken YAML": ("heads: {ratio: 0.1", "YAML"),
    "a tab": ("heads:\n\tratio: 0.1", "YAML"),
    "an object of Python": ("!!python/object/apply:os.getcwd []", "YAML"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_clear_line(name):
    text, word = BAD[name]
    with pytest.raises(UsageError) as caught:
        Recipe.from_yaml(text)
    message = str(caught.value)
    assert "\n" not in message and word in message, message
    assert len(message) < 400


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"model: {source: caf\xe9}")
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(UsageError) as caught:
            Recipe.read(path)
        assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_changed_updates_sections_and_validates():
    recipe = Recipe.parse(FULL)
    other = recipe.changed(ffn={"ratio": 0.5}, seed=9)
    assert (other.ffn.ratio, other.ffn.score, other.seed) == (0.5, "second_moment", 9)
    assert recipe.ffn.ratio == 0.267
    with pytest.raises(UsageError, match="ffn.ratio"):
        recipe.changed(ffn={"ratio": 1.5})


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(ValueError):
        Recipe().seed = 3


def test_the_largest_threshold_is_ln_2():
    assert Recipe.parse({"heads": {"threshold": math.log(2.0)}}).heads.threshold == math.log(2.0)


def test_marks_change_by_block_and_empty_ones_vanish():
    recipe = Recipe.parse({"marks": {5: {"keep": [3, 1, 3]}, 2: {"drop": [0]}, 7: {}}})
    assert list(recipe.marks) == [2, 5] and recipe.marks[5].keep == (1, 3)
    changed = recipe.changed(marks={2: {}, 6: {"drop": [4]}})
    assert list(changed.marks) == [5, 6] and changed.marks[5] == recipe.marks[5]
    assert Recipe.from_yaml(changed.to_yaml()) == changed


def test_what_a_form_shows_has_a_title_and_help_in_one_line():
    schema = Recipe.model_json_schema()
    every = [f for part in (schema, *schema["$defs"].values()) for f in part["properties"].items()]
    shown = [(name, field) for name, field in every if "group" in field]
    assert shown and all(field["title"] for _, field in shown)
    helped = {name: field["description"] for name, field in shown if name != "scope"}
    assert all(text.endswith(".") and "\n" not in text for text in helped.values())
    assert f"about {ENOUGH_WINDOWS} windows" in helped["copies"]
