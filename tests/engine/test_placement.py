"""Models whose blocks come and go compute what they compute whole, in the memory of a block."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import families
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import pruning
from pruning import placement
from pruning.apply import apply
from pruning.checkpoint.shards import write_shards
from pruning.cli.main import main
from pruning.errors import Cancelled, OutOfMemory, SourceError, Unsupported, UsageError
from pruning.evaluate.perplexity import batched_losses
from pruning.measure import measure
from pruning.pipeline import measure_model
from pruning.planning import make_plan
from pruning.sources import estimate as estimates
from pruning.sources import open as opening
from pruning.sources.estimate import Task, estimate
from pruning.sources.placing import spread_map

PLACED = ("llama_grouped", "gpt2", "gptj", "bloom", "stablelm", "gemma2", "opt_norm_after")
RULES = {"ffn__ratio": 0.3, "heads__ratio": 0.2, "recovery__copies": 1}


def _losses(loaded, ids):
    return torch.cat(list(batched_losses(loaded.model, ids)))


def _values(loaded):
    blocks = loaded.adapter.blocks(loaded.model)
    state = loaded.model.state_dict(keep_vars=True)
    return {name: placement.value_of(blocks, tensor) for name, tensor in state.items()}


def _same(one, other):
    first, second = _values(one), _values(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


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
    one, other = pruning.prune(whole, recipe), pruning.prune(disk, recipe)
    assert one.plan == other.plan and one.widths == other.widths
    for mine, its in zip(one.events, other.events, strict=True):
        assert replace(mine, seconds=0.0, solve_seconds=0.0) == replace(
            its, seconds=0.0, solve_seconds=0.0
        )
    ids = families.token_ids(5)
    for left, right in ((whole, disk), (one.pruned, other.pruned)):
        _same(left, right)
        assert torch.equal(_losses(left, ids), _losses(right, ids))
        expected = families.logits(left.model, ids)
        torch.testing.assert_close(families.logits(right.model, ids), expected, rtol=0, atol=1e-5)
    assert all(p.device.type == "meta" for p in disk.adapter.blocks(disk.model).parameters())

    pruning.save(other, tmp_path / "small")
    for where in ("whole", "disk"):
        again = pruning.load(str(tmp_path / "small"), device="cpu", placement=where)
        _same(one.pruned, again)
        assert torch.equal(_losses(one.pruned, ids), _losses(again, ids))


@pytest.mark.parametrize("folder", ["llama_grouped", "phi"], indirect=True)
def test_every_pass_of_the_measurement_is_the_same(folder, monkeypatch, tmp_path):
    found = []
    for where in ("whole", "disk"):
        # a cache each: the second must not read what the first has found
        monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / where))
        loaded = pruning.load(str(folder), device="cpu", placement=where)
        recipe = families.recipe()
        found.append(measure_model(loaded, recipe, gradients=True, curves=True))
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
        run = pruning.prune(loaded, recipe)
        out = tmp_path / f"{form}-{where}"
        pruning.save(run, out, form)
        files.append(load_file(out / "model.safetensors"))
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def _many_blocks(folder, count):
    model = families.llama_grouped(num_hidden_layers=count)
    families.randomise(model, 1)
    model.save_pretrained(folder)
    return folder


def _parameter_bytes():
    """Of all parameters that are alive in this process."""
    gc.collect()
    living = (o for o in gc.get_objects() if type(o) is nn.Parameter)
    return sum(p.nbytes for p in living if p.device.type != "meta")


@contextmanager
def _counted(monkeypatch):
    """Bytes of block tensors brought from disk, each time one is entered: those of the store,
    and those of every parameter that is alive in this process."""
    store, alive, enter = [], [], placement.BlockStore._enter

    def counting(self, block):
        enter(self, block)
        store.append(sum(here.nbytes for here, _ in self._here.values()))
        assert not self._coming  # what was read ahead is what the block wanted
        if len(store) % 15 == 8:  # looking at every object of the process takes a while
            alive.append(_parameter_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(placement.BlockStore, "_enter", counting)
        yield store, alive


def test_memory_is_that_of_one_block_however_many_there_are(tmp_path, monkeypatch):
    peaks = {}
    for count in (4, 24):
        folder = _many_blocks(tmp_path / str(count), count)
        loaded = pruning.load(str(folder), device="cpu", placement="disk")
        blocks = loaded.adapter.blocks(loaded.model)
        block = sum(p.nbytes for p in blocks[0].parameters())
        inside = {id(p) for p in blocks.parameters()}
        outside = sum(p.nbytes for p in loaded.model.parameters() if id(p) not in inside)
        others = _parameter_bytes() - outside
        with _counted(monkeypatch) as (store, alive):
            measure_model(loaded, families.recipe())
            _losses(loaded, families.token_ids(4))
        assert len(store) >= 2 * count
        assert max(store) == block
        assert max(alive) - others <= outside + block
        with _counted(monkeypatch) as (store, _alive):
            run = pruning.prune(loaded, families.recipe(ffn__ratio=0.3, heads__ratio=0.2))
            _losses(run.pruned, families.token_ids(4))
        # the dense block and what of the pruned one has not been made anew
        assert max(store) <= 2 * block
        peaks[count] = max(store)
        assert not any(p.device.type != "meta" for p in blocks.parameters())
        # what was made anew is on disk, for as long as it is used
        made = run.pruned.adapter.blocks(run.pruned.model)
        assert not any(p.device.type != "meta" for p in made.parameters())
        files = list(Path(os.environ["HEADROOM_CACHE"]).glob("blocks-*/*.safetensors"))
        assert len(files) >= 4 * count
        del run, made
        gc.collect()
        assert not any(file.exists() for file in files)
    assert peaks[4] == peaks[24]


def test_what_a_killed_process_left_is_swept(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone, ours = (tmp_path / f"blocks-{pid}-x" for pid in (ended.pid, os.getpid()))
    for folder in (gone, ours):
        folder.mkdir()
        (folder / "0.safetensors").write_bytes(b"pruned")
    loaded = pruning.load(str(_many_blocks(tmp_path, 2)), device="cpu", placement="disk")
    run = pruning.prune(loaded, families.recipe(ffn__ratio=0.3))
    assert not gone.exists() and (ours / "0.safetensors").is_file()
    assert len(list(tmp_path.glob(f"blocks-{os.getpid()}-*/*.safetensors"))) > 1
    del run


def test_the_next_block_is_read_while_one_computes(tmp_path, monkeypatch):
    loaded = pruning.load(str(_many_blocks(tmp_path, 5)), device="cpu", placement="disk")
    read, reads = placement.Stored.read, []

    def reading(self, dtype):
        ahead = threading.current_thread() is not threading.main_thread()
        reads.append((int(self.name.split(".")[2]), ahead, self.name))
        return read(self, dtype)

    monkeypatch.setattr(placement.Stored, "read", reading)
    windows = families.windows(loaded)
    recipe = families.recipe(ffn__ratio=0.3)
    measured = measure(loaded.model, windows, name="tiny")
    passes = [reads.copy()]
    reads.clear()
    apply(loaded.model, make_plan(measured, recipe), recipe, windows)
    passes.append(reads.copy())
    for found in passes:
        # the model's frame runs the first block once before
        ahead = [name for block, ahead, name in found if ahead]
        assert len(ahead) == len(set(ahead))  # each tensor once
        assert {block for block, ahead, _ in found if ahead} == {1, 2, 3, 4}
        assert {block for block, ahead, _ in found if not ahead} == {0}


def test_what_was_read_ahead_is_forgotten_when_cancelled(tmp_path):
    loaded = pruning.load(str(_many_blocks(tmp_path, 4)), device="cpu", placement="disk")
    blocks = loaded.adapter.blocks(loaded.model)
    store = blocks[0].block_store
    with pytest.raises(Cancelled), placement.resident(blocks[0], then=blocks[1:2]):
        assert store._coming
        with placement.resident(blocks[0]):  # nested, as a block's own forward pass is
            assert store._coming
        raise Cancelled
    assert not store._coming and not store._here


def test_writing_holds_one_shard_at_a_time(tmp_path):
    folder = _many_blocks(tmp_path / "dense", 8)
    loaded = pruning.load(str(folder), device="cpu", placement="disk")
    blocks = loaded.adapter.blocks(loaded.model)
    block = sum(p.nbytes for p in blocks[0].parameters())
    write_shards(loaded.model, blocks, tmp_path, limit=2 * block)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 3
    assert all((tmp_path / file).stat().st_size < 2.2 * block for file in files)
    whole = pruning.load(str(folder), device="cpu")
    _same(whole, pruning.load(str(tmp_path), device="cpu"))
    _same(whole, pruning.load(str(tmp_path), device="cpu", placement="disk"))


@pytest.mark.parametrize("folder", ["gpt2"], indirect=True)
def test_names_without_the_models_prefix(folder):
    file = folder / "model.safetensors"
    weights = {k.removeprefix("transformer."): v for k, v in load_file(file).items()}
    assert not any(name.startswith("transformer.") for name in weights)
    save_file(weights, file, metadata={"format": "pt"})
    whole = pruning.load(str(folder), device="cpu")
    _same(whole, pruning.load(str(folder), device="cpu", placement="disk"))


@pytest.mark.parametrize("folder", ["llama_grouped"], indirect=True)
def test_weights_that_cannot_be_matched_are_refused(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.other.weight"] = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(Unsupported, match="up_proj.*placement 'memory' or 'whole'"):
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
    one = pruning.prune(whole, recipe)
    for where in ("spread", "memory", "disk"):
        # accelerate, which loads what is spread, would offload from one name to the other
        devices = [cards[0]] * 2 if where == "spread" else cards
        monkeypatch.setattr(opening, "compute_devices", lambda _device, found=devices: found)
        loaded = pruning.load(str(folder), device="cpu", placement=where)
        blocks = loaded.adapter.blocks(loaded.model)
        assert [placement.device_of(block) for block in blocks] == [*devices, cards[0]]
        run = pruning.prune(loaded, recipe)
        assert run.plan == one.plan
        _same(one.pruned, run.pruned)
        assert torch.equal(_losses(run.pruned, ids), _losses(one.pruned, ids))


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
            *(getattr(pruning.load(str(model_folder), device="cpu", placement=where), name)
              for name in ("model", "tokenizer")),
            "The water", max_new_tokens=5,
        ).text
        for where in ("whole", "disk")
    ]  # fmt: skip
    assert texts[0] == texts[1]


GIB = 2**30


def _big(device="cpu", free=24.0, free_cpu=None, cards=1, **task):
    """A Llama of 7B in float32 with so much free."""
    sizes = estimates.Sizes(
        parameters=6_738_415_616, block_parameters=32 * 202_383_360, largest_block=202_383_360,
        hidden=4096, inner=11008, active=11008, experts=1, heads=32, vocabulary=32000,
        streams=3,
    )  # fmt: skip
    found = estimates.MemoryEstimate(
        sizes, Task(**task), "float32", device, int(free * GIB),
        int((free if free_cpu is None else free_cpu) * GIB), cards,
    )  # fmt: skip
    return found


def test_the_arithmetic_adds_up():
    found = _big(free=200)
    on_device, on_cpu = found.needs("whole")
    assert on_cpu == 0
    assert on_device == sum(
        (found.weight_bytes, found.pruned_bytes, found.working_bytes, found.activation_bytes)
    )
    assert found.activation_bytes == 3 * 32 * 128 * 4096 * 4
    assert found.placement() == "whole"
    # on the device one block at a time, so the number of blocks makes no difference
    short = replace(found.sizes, parameters=found.parameters - 16 * 202_383_360,
                    block_parameters=16 * 202_383_360)  # fmt: skip
    fewer = replace(found, sizes=short, device="cuda")
    assert fewer.needs("disk")[0] == replace(found, device="cuda").needs("disk")[0]
    assert fewer.needs("memory")[1] < replace(found, device="cuda").needs("memory")[1]


def test_the_quickest_placement_that_fits():
    assert _big("cuda", free=140, free_cpu=100).placement() == "whole"
    assert _big("cuda", free=40, free_cpu=100).placement() == "memory"
    assert _big("cuda", free=40, free_cpu=30).placement() == "disk"
    assert _big("cuda", free=40, free_cpu=100, cards=4).placement() == "spread"
    assert _big("cuda", free=1, free_cpu=100).placement() is None
    assert _big("cpu", free=40).placement() == "disk"


def test_a_refusal_says_what_would_fit():
    whole = _big("cpu", free=40).sentence()
    assert "6,738 M parameters in float32" in whole and f"{4 * 6_738_415_616 / 1e9:.2f} GB" in whole
    assert f"{(40 << 30) / 1e9:.2f} GB free" in whole and "GiB" not in whole
    assert "placement disk" in whole and "bfloat16" in whole
    fewer = _big("cpu", free=24, samples=2048).sentence("disk")
    assert "That does not fit; this would: bfloat16" in fewer
    half = replace(_big("cpu", free=8, samples=1024), dtype="bfloat16").sentence()
    assert "samples" in half.split("this would")[1]
    assert "smaller model" in _big("cpu", free=1).sentence()
    for said in (whole, fewer, half):
        assert "\n" not in said


def test_loading_follows_the_estimate(model_folder, monkeypatch):
    needs = estimate(str(model_folder), device="cpu")
    load = pruning.load

    def free(amount):
        monkeypatch.setattr(estimates, "free_bytes", lambda _device: amount)

    free(needs.needs("whole")[0])
    assert load(str(model_folder), device="cpu").placement == "whole"
    free(needs.needs("disk")[0])
    assert load(str(model_folder), device="cpu").placement == "disk"
    with pytest.raises(OutOfMemory, match=r"does not fit; this would: .*placement disk"):
        load(str(model_folder), device="cpu", placement="whole", task=Task())
    # who does not say may want to evaluate only
    free(replace(needs, task=estimates.EVALUATION).needs("disk")[0])
    assert load(str(model_folder), device="cpu").placement == "disk"
    with pytest.raises(OutOfMemory, match="in all .* of cpu, which has"):
        load(str(model_folder), device="cpu", task=Task())
    free(1000)
    with pytest.raises(OutOfMemory, match="does not fit"):
        load(str(model_folder), device="cpu")
    with pytest.raises(UsageError, match="placement 'moon'.*auto, whole"):
        load(str(model_folder), device="cpu", placement="moon")


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
    status, found, _ = run("prune", model_folder, *small, "--out", tmp_path / "out",
                           "--placement", "disk", "--evaluate", "none")  # fmt: skip
    assert status == 0 and (tmp_path / "out" / "config.json").is_file()
    status, _, err = run("evaluate", model_folder, "--text", "sample", "--placement", "moon")
    assert status == 2 and "Unknown placement" in err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_gpu_holds_one_block(tmp_path, where):
    folder = _many_blocks(tmp_path, 24)
    loaded = pruning.load(str(folder), device="cuda", placement=where)
    whole = sum(p.nbytes for p in loaded.adapter.blocks(loaded.model).parameters())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    _losses(loaded, families.token_ids(2))
    assert torch.cuda.max_memory_allocated() - before < whole / 4
