"""Saved and loaded again: bit-equal logits; damage is refused in one line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import pruning
from pruning.checkpoint import Evaluation, export, save
from pruning.pipeline import prune
from pruning.utils.errors import SourceError, UsageError
from tests.helpers import families

CUT = {"heads__threshold": 0.3, "heads__ratio": 0.2, "ffn__ratio": 0.4}
WAYS = [
    ("none", "auto"),
    ("bias", "auto"),
    ("refit", "auto"),
    ("refit", "add"),
    ("reconstruct", "auto"),
    ("full", "auto"),
    ("full", "add"),
]


@pytest.fixture(params=families.FAMILIES, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    """One saved run, not to be changed."""
    run = prune(tiny_model("llama_grouped"), families.recipe(**CUT))
    return save(run, tmp_path_factory.mktemp("saved") / "model"), run


@pytest.fixture(scope="module")
def whole(model_folder, tmp_path_factory):
    """A compact folder with everything a folder can have; not to be changed."""
    run = prune(pruning.load(str(model_folder), device="cpu"), families.recipe(ffn__ratio=0.4))
    evaluation = Evaluation(12.5, 14.75, "some text (test), 4 windows.")
    return save(run, tmp_path_factory.mktemp("whole") / "model", evaluation=evaluation)


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the saved folder that a test may damage."""
    return shutil.copytree(saved[0], tmp_path / "copy")


def _refused(folder, *words):
    with pytest.raises(SourceError) as caught:
        pruning.load(str(folder), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(("method", "intercept"), WAYS)
def test_loads_with_equal_logits(tiny, tmp_path, method, intercept):
    recipe = families.recipe(
        **CUT, recovery__method=method, recovery__intercept=intercept, calibration__samples=20
    )
    run = prune(tiny, recipe)
    folder = save(run, tmp_path / "out")
    loaded = pruning.load(str(folder), device="cpu")
    ids = families.token_ids()
    assert torch.equal(families.logits(loaded.model, ids), families.logits(run.pruned.model, ids))
    live = sum(p.numel() for p in loaded.model.parameters())
    assert live == run.report.after.parameters
    assert loaded.dtype == "float32" and not loaded.model.training


def test_bias_compensation_adds_a_bias_to_a_layer_without_one(tiny_model, tmp_path):
    run = prune(tiny_model("llama_grouped"), families.recipe(**CUT, recovery__method="bias"))
    assert any(width.added_ffn_bias for width in run.widths)
    loaded = pruning.load(str(save(run, tmp_path / "out")), device="cpu")
    layer = loaded.adapter.ffn(loaded.adapter.blocks(loaded.model)[0]).out_proj
    assert layer.bias is not None and layer.bias.abs().max() > 0


def test_the_folder_holds_what_tells_how_it_came_about(saved):
    folder, run = saved
    assert pruning.Recipe.read(folder / "recipe.yaml") == run.recipe
    assert pruning.Plan.from_json((folder / "plan.json").read_text()) == run.plan
    report = json.loads((folder / "report.json").read_text())
    assert report["parameters_after"] == run.report.after.parameters
    assert "pruned with Headroom" in (folder / "README.md").read_text()
    assert not list(folder.parent.glob(".*"))  # nothing is left of writing aside


def test_shards(saved, copy):
    run = saved[1]
    (copy / "model.safetensors").unlink()
    config = (copy / "config.json").read_text()
    run.pruned.model.save_pretrained(copy, max_shard_size="20KB")
    (copy / "config.json").write_text(config)
    assert len(list(copy.glob("model-*.safetensors"))) > 2
    loaded, ids = pruning.load(str(copy), device="cpu"), families.token_ids()
    assert torch.equal(families.logits(loaded.model, ids), families.logits(run.pruned.model, ids))
    shard = sorted(copy.glob("model-*.safetensors"))[1]
    shard.unlink()
    _refused(copy, shard.name, "missing")


def test_a_damaged_shard(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    _refused(copy, "model.safetensors", "damaged")


def test_a_missing_file(copy):
    (copy / "model.safetensors").unlink()
    _refused(copy, "model.safetensors", "missing")


def test_a_missing_weight(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, copy / "model.safetensors")
    _refused(copy, "model.layers.1.mlp.down_proj.weight")


def test_a_weight_of_another_size(copy):
    weights = load_file(copy / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name][:, 1:].contiguous()
    save_file(weights, copy / "model.safetensors")
    _refused(copy)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda key: key.update(format=2), "format 2"),
        (lambda key: key["blocks"].pop(), "damaged"),
        (lambda key: key["blocks"][0].update(heads=0), "damaged"),
        (lambda key: key["blocks"][0].update(colour=1), "damaged"),
        (lambda key: key.pop("blocks"), "damaged"),
        (lambda key: key.pop("layers"), "damaged"),
        (lambda key: key["blocks"][0].update(heads=3), "damaged"),
        (lambda key: key["layers"].update(absent={"weight": [1, 1]}), "damaged"),
        (lambda key: key["layers"]["model.layers.0.mlp.up_proj"].update(weight=[0, 48]), "damaged"),
        (lambda key: key["layers"]["model.layers.0.mlp.up_proj"].update(colour=[1]), "damaged"),
        (lambda key: key["attributes"]["model.layers.0.mlp.up_proj"].update(forward=1), "damaged"),
    ],
)
def test_widths_that_cannot_be_read(copy, change, word):
    config = json.loads((copy / "config.json").read_text())
    change(config["headroom"])
    (copy / "config.json").write_text(json.dumps(config))
    _refused(copy, word)


def test_a_broken_config(copy):
    (copy / "config.json").write_text('{"model_type": "llama", ')
    _refused(copy)


@pytest.mark.parametrize("damage", ["missing", "cut"])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "plan.json",
        "recipe.yaml",
        "report.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "evaluation.json",
    ],
)
def test_any_file_that_is_missing_or_cut_is_one_line(whole, tmp_path, name, damage):
    """Nothing is written then, and no form loses a part silently."""
    folder, out = shutil.copytree(whole, tmp_path / "copy"), tmp_path / "out"
    optional = name in ("tokenizer_config.json", "generation_config.json", "evaluation.json")
    if damage == "cut":
        (folder / name).write_bytes((folder / name).read_bytes()[:30])
    else:
        (folder / name).unlink()
        if optional:
            export(folder, out, "uniform")
            assert pruning.load(str(out), device="cpu").tokenizer is not None
            return
    with pytest.raises((SourceError, UsageError)) as caught:
        export(folder, out, "uniform")
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and not out.exists()


def test_another_folder_is_never_replaced(saved, tmp_path):
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        save(saved[1], precious)
    with pytest.raises(UsageError, match="is a file"):
        save(saved[1], precious / "chapter.txt")
    assert (precious / "chapter.txt").read_text() == "mine"


def test_saving_again_replaces_the_earlier_run(saved, copy, tiny_model):
    other = prune(tiny_model("llama_grouped", 1), families.recipe(ffn__ratio=0.2))
    save(other, copy)
    loaded, ids = pruning.load(str(copy), device="cpu"), families.token_ids()
    assert torch.equal(families.logits(loaded.model, ids), families.logits(other.pruned.model, ids))


@pytest.mark.parametrize("method", ["refit", "bias"])
def test_a_loaded_model_can_be_pruned_and_saved_again(tiny, tmp_path, method):
    first = prune(tiny, families.recipe(ffn__ratio=0.2, recovery__method=method))
    loaded = pruning.load(str(save(first, tmp_path / "first")), device="cpu")
    second = prune(loaded, families.recipe(**CUT, recovery__method=method))
    again = pruning.load(str(save(second, tmp_path / "second")), device="cpu")
    ids = families.token_ids()
    assert torch.equal(families.logits(again.model, ids), families.logits(second.pruned.model, ids))
    live = sum(p.numel() for p in again.model.parameters())
    assert live == second.report.after.parameters < first.report.after.parameters


@pytest.mark.parametrize("method", ["refit", "bias"])
def test_pruning_again_in_memory_saves_what_pruning_the_loaded_model_saves(tiny, tmp_path, method):
    first = prune(tiny, families.recipe(ffn__ratio=0.2, recovery__method=method))
    loaded = pruning.load(str(save(first, tmp_path / "first")), device="cpu")
    again = families.recipe(**CUT, recovery__method="none")
    in_memory, from_disk = (
        save(prune(model, again), tmp_path / name)
        for name, model in (("memory", first.pruned), ("disk", loaded))
    )
    for name in ("config.json", "model.safetensors"):
        assert (in_memory / name).read_bytes() == (from_disk / name).read_bytes(), name


def test_another_dtype_changes_the_weights_and_not_the_positions(saved):
    """Rotary frequencies stay float32, as in any model that transformers loads."""
    folder, run = saved
    loaded = pruning.load(str(folder), dtype="bfloat16", device="cpu").model
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    kept = dict(run.pruned.model.named_buffers())
    assert kept
    for name, buffer in loaded.named_buffers():
        assert buffer.dtype == torch.float32, name
        assert torch.equal(buffer, kept[name]), name
