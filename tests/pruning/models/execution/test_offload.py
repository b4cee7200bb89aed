"""Models whose blocks come and go compute what they compute whole."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import pruning
from pruning.cli.main import main
from pruning.models.execution import offload
from pruning.models.loading import loader as opening
from pruning.models.loading.from_disk import spread_map
from pruning.pipeline import measure_model, prune
from pruning.utils.errors import SourceError
from tests.helpers import families
from tests.helpers.placed_models import losses, same

PLACED = ("llama_grouped", "gpt2", "gptj", "bloom", "stablelm", "gemma2", "opt_norm_after")
RULES = {"ffn__ratio": 0.3, "heads__ratio": 0.2, "recovery__copies": 1}


@pytest.fixture
def folder(request, tmp_path):
    """A dense checkpoint of the parametrised family, in bfloat16 for one of them."""
    place = tmp_path / "dense"
    dtype = torch.bfloat16 if request.param == "stablelm" else torch.float32
    families.build(request.param, dtype=dtype).save_pretrained(place)
    return place


@pytest.mark.parametrize("folder", PLACED, indirect=True)
def test_from_disk_as_from_memory(folder, tmp_path):
    whole = pruning.load(str(folder), device="cpu")
    disk = pruning.load(str(folder), device="cpu", placement="disk")
    assert (whole.placement, disk.placement) == ("whole", "disk")
    recipe = families.recipe(**RULES)
    one, other = prune(whole, recipe), prune(disk, recipe)
    assert one.plan == other.plan and one.widths == other.widths
    for mine, its in zip(one.events, other.events, strict=True):
        assert replace(mine, seconds=0.0, solve_seconds=0.0) == replace(
            its, seconds=0.0, solve_seconds=0.0
        )
    ids = families.token_ids(5)
    for left, right in ((whole, disk), (one.pruned, other.pruned)):
        same(left, right)
        assert torch.equal(losses(left, ids), losses(right, ids))
        expected = families.logits(left.model, ids)
        torch.testing.assert_close(families.logits(right.model, ids), expected, rtol=0, atol=1e-5)
    assert all(p.device.type == "meta" for p in disk.adapter.blocks(disk.model).parameters())

    pruning.save(other, tmp_path / "small")
    for where in ("whole", "disk"):
        again = pruning.load(str(tmp_path / "small"), device="cpu", placement=where)
        same(one.pruned, again)
        assert torch.equal(losses(one.pruned, ids), losses(again, ids))


@pytest.mark.parametrize("folder", ["llama_grouped", "phi"], indirect=True)
def test_every_pass_of_the_measurement_is_the_same(folder, monkeypatch, tmp_path):
    found = []
    for where in ("whole", "disk"):
        # a cache each: the second must not read what the first has found
        monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / where))
        loaded = pruning.load(str(folder), device="cpu", placement=where)
        recipe = families.recipe()
        found.append(measure_model(loaded, recipe, gradients=True, loss_curves=True))
    for mine, its in zip(found[0].blocks, found[1].blocks, strict=True):
        assert (mine.divergence == its.divergence).all()
        assert mine.activations == its.activations
        for kind in ("attention", "ffn"):
            one, other = getattr(mine, kind).statistics, getattr(its, kind).statistics
            assert one.keys() == other.keys()
            assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize("folder", ["llama_grouped"], indirect=True)
@pytest.mark.parametrize("form", ["padded", "uniform"])
def test_other_forms_from_disk(folder, tmp_path, form):
    recipe = families.recipe(ffn__ratio=0.3, recovery__method="none")
    files = []
    for where in ("whole", "disk"):
        loaded = pruning.load(str(folder), device="cpu", placement=where)
        run = prune(loaded, recipe)
        out = tmp_path / f"{form}-{where}"
        pruning.save(run, out, form)
        files.append(load_file(out / "model.safetensors"))
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


@pytest.mark.parametrize("folder", ["gpt2"], indirect=True)
def test_names_without_the_models_prefix(folder):
    file = folder / "model.safetensors"
    weights = {k.removeprefix("transformer."): v for k, v in load_file(file).items()}
    assert not any(name.startswith("transformer.") for name in weights)
    save_file(weights, file, metadata={"format": "pt"})
    whole = pruning.load(str(folder), device="cpu")
    same(whole, pruning.load(str(folder), device="cpu", placement="disk"))


@pytest.mark.parametrize("folder", ["llama_grouped"], indirect=True)
def test_weights_that_cannot_be_matched_are_refused(folder):
    """No other placement could, so none is advised."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.other.weight"] = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(SourceError, match="lacks weight 'model.layers.1.mlp.up_proj.weight'"):
        pruning.load(str(folder), device="cpu", placement="disk")


@pytest.mark.parametrize("folder", ["llama_grouped"], indirect=True)
def test_a_file_that_goes_away(folder):
    loaded = pruning.load(str(folder), device="cpu", placement="disk")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="load the model again"):
        families.logits(loaded.model, families.token_ids())
    assert all(p.device.type == "meta" for p in loaded.adapter.blocks(loaded.model).parameters())


@pytest.mark.parametrize("folder", ["gpt2", "bloom"], indirect=True)
def test_blocks_go_round_the_cards(folder, monkeypatch):
    """Two names for one device stand for two cards."""
    cards = [torch.device("cpu"), torch.device("cpu", 0)]
    whole = pruning.load(str(folder), device="cpu", placement="whole")
    recipe, ids = families.recipe(**RULES), families.token_ids()
    one = prune(whole, recipe)
    for where in ("spread", "memory", "disk"):
        # accelerate, which loads what is spread, would offload from one name to the other
        devices = [cards[0]] * 2 if where == "spread" else cards
        monkeypatch.setattr(opening, "compute_devices", lambda _device, found=devices: found)
        loaded = pruning.load(str(folder), device="cpu", placement=where)
        blocks = loaded.adapter.blocks(loaded.model)
        assert [offload.device_of(block) for block in blocks] == [*devices, cards[0]]
        run = prune(loaded, recipe)
        assert run.plan == one.plan
        same(one.pruned, run.pruned)
        assert torch.equal(losses(run.pruned, ids), losses(one.pruned, ids))


def test_the_device_map_takes_cards_in_turn(tiny_model):
    cards = [torch.device("cuda", 0), torch.device("cuda", 1)]
    tiny = tiny_model("gpt2")
    assert spread_map(tiny.model.config, tiny.adapter, cards) == {
        "": "cuda:0",
        "transformer.h.0": "cuda:0",
        "transformer.h.1": "cuda:1",
        "transformer.h.2": "cuda:0",
    }


def test_generation_from_disk(model_folder):
    texts = [
        pruning.generate(
            *(
                getattr(pruning.load(str(model_folder), device="cpu", placement=where), name)
                for name in ("model", "tokenizer")
            ),
            "The water",
            max_new_tokens=5,
        ).text
        for where in ("whole", "disk")
    ]
    assert texts[0] == texts[1]


def test_the_command_line_places_blocks(model_folder, tmp_path, capsys):
    def run(*arguments):
        status = main([*map(str, arguments), "--device", "cpu", "--json"])
        out, err = capsys.readouterr()
        return status, json.loads(out) if out else None, err

    scores = []
    for where in ("whole", "disk"):
        options = ("--text", "sample", "--windows", 3, "--seq-len", 16, "--placement", where)
        status, found, err = run("evaluate", model_folder, *options)
        assert status == 0 and ("placement disk" in err) == (where == "disk")
        scores.append(found["perplexity"])
    assert scores[0] == scores[1]
    small = ("--calibration", "sample", "--samples", 4, "--seq-len", 16, "--ffn-ratio", 0.3)
    status, found, _ = run(
        "prune",
        model_folder,
        *small,
        "--out",
        tmp_path / "out",
        "--placement",
        "disk",
        "--evaluate",
        "none",
    )
    assert status == 0 and (tmp_path / "out" / "config.json").is_file()
    status, _, err = run("evaluate", model_folder, "--text", "sample", "--placement", "moon")
    assert status == 2 and "Unknown placement" in err
