"""``headroom validate``, and that the other commands refuse the same before weights are read."""

from __future__ import annotations

import json
import tempfile

import pytest
import yaml

import pruning
import pruning.pipeline
from pruning.artifacts.recipe import Recipe
from pruning.models.loading import memory_estimate
from pruning.planning.checks import check_recipe
from pruning.utils.errors import HeadroomError
from tests.helpers import families

RECIPE = {
    "model": {"source": "somewhere"},
    "calibration": {"source": "sample", "samples": 4, "seq_len": 16},
    "ffn": {"ratio": 0.25},
}


@pytest.fixture
def no_weights(monkeypatch):
    """Weights cannot be read, neither by safetensors nor by transformers."""

    def forbidden(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr("safetensors.safe_open", forbidden)
    monkeypatch.setattr("transformers.modeling_utils.safe_open", forbidden)
    monkeypatch.setattr("pruning.models.compact.load.safe_open", forbidden)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", forbidden)


@pytest.fixture(scope="module")
def gpt2_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    families.build("gpt2").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def written(folder, **changes):
    """A recipe file with some sections changed."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


# name -> sections of the recipe, options, exit status, words of the sentence
WRONG = {
    "block range": ({"blocks": {"start": 1, "end": 50}}, (), 2, "does not fit a model of 3 blocks"),
    "threshold": ({"heads": {"threshold": 0.8}}, (), 2, "heads.threshold"),
    "criterion": ({"ffn": {"score": "flop"}}, (), 2, "did you mean 'flap'?"),
    "marks of another model": ({"marks": {0: {"drop": [11]}}}, (), 2, "marks head 11"),
    "marks against the policy": (
        {"heads": {"policy": "kv_group"}, "marks": {0: {"keep": [0], "drop": [1]}}},
        (),
        2,
        "cannot be honoured",
    ),
    "budget too small": ({"budget": {"kept": 0.01}}, (), 2, "The budget is too small"),
    "budget below what the policy leaves": (
        {"budget": {"kept": 0.2}, "heads": {"policy": "query"}},
        (),
        2,
        "The budget is too small",
    ),
    "hand and budget": (
        {"allocation": "by_hand", "by_hand": {0: {"ffn": 0.5}}, "budget": {"kept": 0.9}},
        (),
        2,
        "knows no budget",
    ),
    "uniform, some blocks": (
        {"blocks": {"start": 1, "end": 2}},
        ("--form", "uniform"),
        1,
        "The blocks differ in width",
    ),
    "uniform, a budget for some blocks": (
        {"blocks": {"start": 1, "end": 2}, "budget": {"kept": 0.9}},
        ("--form", "uniform"),
        1,
        "Only some of the blocks are cut",
    ),
    "form": ({}, ("--form", "unifrom"), 2, "did you mean 'uniform'?"),
    "out below a file": ({}, ("--out", "{folder}/recipe.yaml/model"), 1, "cannot be written"),
    "out is here": ({}, ("--out", "."), 2, "working folder"),
    "corpus": ({"calibration": {"source": "wikitex2"}}, (), 2, "did you mean 'wikitext2'?"),
    "text file": ({"calibration": {"source": "no/such.txt"}}, (), 1, "neither a corpus"),
    "windows too long": ({"calibration": {"source": "sample", "seq_len": 999}}, (), 2, "positions"),
    "policy": ({"heads": {"policy": "kv_grop"}}, (), 2, "did you mean 'kv_group'?"),
    "device": ({}, ("--device", "cdua"), 2, "did you mean 'cuda'?"),
    "placement": ({}, ("--placement", "dsik"), 2, "did you mean 'disk'?"),
    "option": ({}, ("--from", "uniform"), 2, "did you mean '--form'?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_recipe_is_refused_without_weights(case, run, no_weights, model_folder, tmp_path):
    sections, options, expected, words = WRONG[case]
    path = written(tmp_path, **sections)
    options = [option.format(folder=tmp_path) for option in options]
    status, out, err = run("validate", path, model_folder, "--device", "cpu", *options)
    assert (status, out) == (expected, ""), err
    assert words in err and err.count("\n") == 1 and len(err.replace(str(tmp_path), "")) < 300, err


def test_a_form_that_the_family_does_not_have(run, no_weights, gpt2_folder, tmp_path):
    request = ("validate", written(tmp_path), gpt2_folder, "--device", "cpu", "--form", "gguf")
    status, _, err = run(*request)
    assert status == 1 and "only for Llama-type models, not for GPT2LMHeadModel" in err


def test_a_model_too_large_for_the_memory(run, no_weights, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_estimate, "free_bytes", lambda device: 1)
    status, _, err = run("validate", written(tmp_path), model_folder, "--device", "cpu")
    assert status == 1 and "That does not fit" in err


def test_a_folder_that_may_not_be_written(run, no_weights, model_folder, tmp_path, monkeypatch):
    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refused)
    request = ("validate", written(tmp_path), model_folder, "--out", tmp_path / "new")
    status, _, err = run(*request)
    assert status == 1 and "Permission denied; name a folder" in err


@pytest.mark.parametrize(
    "command",
    [
        ("prune", "--blocks", "1:50", "--ffn-ratio", 0.1, "--out", "{folder}/x"),
        ("prune", "--ffn-ratio", 0.1, "--out", "{folder}/x", "--evaluate", "samlpe"),
        ("prune", "--ffn-ratio", 0.1, "--out", "{folder}/x", "--placement", "dsik"),
        ("prune", "--keep", 0.01, "--out", "{folder}/x"),
        ("measure", "--seq-len", 999, "--out", "{folder}/m.json"),
        ("sweep", "--values", "0.1,0.99"),
        ("sweep", "--values", "0.1", "--text", "samlpe"),
    ],
)
def test_every_command_refuses_before_weights_are_read(
    command, run, no_weights, model_folder, tmp_path
):
    name, *options = (str(word).format(folder=tmp_path) for word in command)
    status, out, err = run(name, model_folder, "--device", "cpu", *options)
    assert (status, out) == (2, ""), err
    assert err.count("\n") == 1 and "weights were read" not in err
    assert not list(tmp_path.iterdir())


def test_the_library_refuses_before_weights_are_read(no_weights, model_folder):
    recipe = Recipe.parse({**RECIPE, "blocks": {"start": 1, "end": 50}})
    with pytest.raises(HeadroomError, match="block range"):
        pruning.prune(str(model_folder), recipe=recipe)


def test_a_model_in_memory_is_refused_before_it_is_measured(tiny_model, monkeypatch):
    monkeypatch.setattr(pruning.pipeline, "run_passes", lambda passes: pytest.fail("measured"))
    recipe = families.recipe(blocks__start=1, blocks__end=50)
    with pytest.raises(HeadroomError, match="block range"):
        pruning.pipeline.prune(tiny_model("llama_grouped"), recipe)


EXACT = {
    "ratios": {"heads": {"ratio": 0.4}, "ffn": {"ratio": 0.3}},
    "groups": {"heads": {"ratio": 0.5, "policy": "kv_group"}, "ffn": {"ratio": 0.3, "multiple": 8}},
    "any heads": {"heads": {"ratio": 0.7, "policy": "ungroup"}},
    "by hand": {"allocation": "by_hand", "by_hand": {1: {"heads": 0.5, "ffn": 0.7}}},
    "some blocks": {"blocks": {"start": 1, "end": 2}, "ffn": {"ratio": 0.5}},
    "marks": {"heads": {"ratio": 0.2}, "marks": {0: {"drop": [0, 1]}, 1: {"keep": [0, 1, 2]}}},
}
AT_MOST = {
    "budget": {"budget": {"kept": 0.7}},
    "megabytes": {"budget": {"megabytes": 0.12}, "heads": {"score": "flap"}},
    "adaptive": {"allocation": "adaptive", "heads": {"ratio": 0.3}, "ffn": {"ratio": 0.3}},
    "threshold": {"heads": {"threshold": 0.2, "ratio": 0.1}},
    "whichever": {"heads": {"ratio": 0.4, "policy": "auto"}, "ffn": {"ratio": 0.1}},
}


@pytest.fixture(scope="module")
def measurement(tiny_model):
    recipe = Recipe.parse({"calibration": {"source": "random", "samples": 4, "seq_len": 12}})
    return pruning.measure_model(tiny_model("llama_grouped"), recipe)


@pytest.mark.parametrize("case", [*EXACT, *AT_MOST])
def test_the_sizes_are_those_of_the_plan(case, measurement):
    recipe = Recipe.parse(EXACT.get(case) or AT_MOST[case])
    outlook = check_recipe(recipe, measurement.shape)
    plan = pruning.make_plan(measurement, recipe)
    assert (outlook.widths is not None) == (case in EXACT)
    if case in EXACT:
        assert outlook.widths == plan.widths and outlook.most == plan.after.parameters
    assert plan.after.parameters <= outlook.most < plan.before.parameters
    assert outlook.cuts or recipe.heads.threshold


def test_what_a_recipe_would_do(run, no_weights, model_folder, tmp_path):
    sections = {
        "allocation": "predicted",
        "budget": {"kept": 0.8},
        "heads": {"score": "taylor_vector", "policy": "auto"},
    }
    request = ("validate", written(tmp_path, **sections), model_folder, "--device", "cpu")
    status, out, err = run(*request, "--out", tmp_path / "new", "--form", "uniform", "--json")
    assert status == 0, err
    result = json.loads(out)
    assert result["parameters_after"] < result["parameters_before"] and not result["exact"]
    assert result["blocks_to_cut"] == [0, 3] and result["head_policy"] == "auto"
    assert [words.split()[0] for words in result["passes"]] == [
        "forward",
        "gradient",
        "loss",
        "recovery",
    ]
    assert result["cost"] == "reads gradients" and result["placement"] == "whole"
    assert result["form"] == "uniform" and any("promise" in words for words in result["remarks"])
    assert not (tmp_path / "new").exists()
    status, out, _ = run(*request)
    assert status == 0 and "parameters: " in out and "at most" in out and "of cpu" in out


def test_a_broken_extension_is_one_line(run, monkeypatch):
    from pruning.cli.base import COMMANDS
    from pruning.utils.errors import BrokenExtension

    def broken(self):
        raise BrokenExtension("The command in x.py cannot be used: KeyError; repair or remove it.")

    monkeypatch.setattr(type(COMMANDS), "__iter__", broken)
    status, out, err = run("ls", "criteria")
    assert (status, out) == (1, "") and err.startswith("headroom: The command in x.py")


@pytest.mark.parametrize("form", ["uniform", "compact"])
def test_a_finished_run_is_kept_where_the_sentence_says(
    form, run, model_folder, tmp_path, monkeypatch
):
    """The config cannot be saved at all: weights and records are kept nevertheless."""

    def refused(*_, **__):
        raise ValueError("the config is not valid")

    monkeypatch.setattr("transformers.PreTrainedConfig.save_pretrained", refused)
    monkeypatch.setattr("pruning.evaluate.perplexity", refused)
    request = ("prune", model_folder, "--device", "cpu", "--ffn-ratio", 0.3, "--form", form)
    sizes = ("--samples", 4, "--seq-len", 16)
    status, _, err = run(*request, *sizes, "--out", tmp_path / "out")
    assert status == 1 and "the card has no perplexity" in err
    place = err.rpartition("kept in ")[2].strip().rstrip(".")
    (folder,) = [path for path in pruning_cache().iterdir() if str(path) == place]
    assert {"model.safetensors", "recipe.yaml", "plan.json", "report.json"} <= {
        path.name for path in folder.iterdir()
    }


def pruning_cache():
    from pruning.utils.files import cache_root

    return cache_root() / "rescued"
