"""Blocks that come and go: one block's memory, and the next is on its way while one computes."""

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

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pruning
from pruning.checkpoint.rewrite.shards import write_shards
from pruning.measure import measure, with_gradients
from pruning.models.execution import offload
from pruning.models.execution.prefetch import Sender
from pruning.models.loading import loader as opening
from pruning.models.loading.memory_estimate import estimate
from pruning.pipeline import measure_model, memory_task, prune
from pruning.planning import make_plan
from pruning.surgery.apply import apply
from pruning.utils.errors import Cancelled
from pruning.utils.leftovers import own_prefix
from tests.helpers import families
from tests.helpers.placed_models import losses, many_blocks, same


def _parameter_bytes():
    """Of all parameters that were made during the test and are alive."""
    gc.collect()
    living = (o for o in gc.get_objects() if type(o) is nn.Parameter)
    return sum(p.nbytes for p in living if p.device.type != "meta")


@contextmanager
def _counted(monkeypatch):
    """Bytes of block tensors brought from disk, each time one is entered: those of the store,
    and those of every parameter of this test that is alive."""
    store, alive, enter = [], [], offload.BlockStore._enter

    def counting(self, block):
        enter(self, block)
        store.append(sum(here.nbytes for here, _ in self._here.values()))
        assert not self._coming  # what was read ahead is what the block wanted
        if len(store) % 15 == 8:  # looking at every object of the process takes a while
            alive.append(_parameter_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(offload.BlockStore, "_enter", counting)
        yield store, alive


@pytest.mark.usefixtures("only_new_objects")
def test_memory_is_that_of_one_block_however_many_there_are(tmp_path, monkeypatch):
    peaks = {}
    for count in (4, 24):
        folder = many_blocks(tmp_path / str(count), count)
        loaded = pruning.load(str(folder), device="cpu", placement="disk")
        blocks = loaded.adapter.blocks(loaded.model)
        block = sum(p.nbytes for p in blocks[0].parameters())
        inside = {id(p) for p in blocks.parameters()}
        outside = sum(p.nbytes for p in loaded.model.parameters() if id(p) not in inside)
        others = _parameter_bytes() - outside
        with _counted(monkeypatch) as (store, alive):
            measure_model(loaded, families.recipe())
            losses(loaded, families.token_ids(4))
        assert len(store) >= 2 * count
        assert max(store) == block
        assert max(alive) - others <= outside + block
        with _counted(monkeypatch) as (store, _alive):
            run = prune(loaded, families.recipe(ffn__ratio=0.3, heads__ratio=0.2))
            losses(run.pruned, families.token_ids(4))
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


class Allocations(TorchDispatchMode):
    """The most bytes that tensors held at once, of all that an operator was given or gave."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bound = 0  # bytes of what was seen, the freed ones too until they have to be told
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, found)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                storage = tensor.untyped_storage()
                # the weak reference keeps the place from being taken by another storage
                known, size = self.seen.get(storage._cdata, (None, 0))
                self.seen[storage._cdata] = known or StorageWeakRef(storage), storage.nbytes()
                self.bound += storage.nbytes() - size
        if self.bound > self.peak:
            self.seen = {key: kept for key, kept in self.seen.items() if not kept[0].expired()}
            self.bound = sum(size for _, size in self.seen.values())
            self.peak = max(self.peak, self.bound)
        return found


def test_all_that_is_allocated_is_bounded_however_many_blocks_there_are(tmp_path):
    """Weights, streams, equations and intermediates together, and within what the estimate says."""
    recipe, peaks = families.recipe(ffn__ratio=0.3, heads__ratio=0.2), {}
    for count in (3, 12):
        folder = many_blocks(tmp_path / str(count), count)
        needs = estimate(str(folder), device="cpu", task=memory_task(recipe)).needs("disk")[0]
        loaded = pruning.load(str(folder), device="cpu", placement="disk")
        with Allocations() as allocations:
            run = prune(loaded, recipe)
            losses(run.pruned, families.token_ids(4))
        blocks = loaded.adapter.blocks(run.pruned.model)
        assert len(blocks) == count and all(p.device.type == "meta" for p in blocks.parameters())
        peaks[count] = allocations.peak
        assert allocations.peak <= needs
    block = sum(p.nbytes for p in families.llama_grouped().model.layers[0].parameters())
    assert block < peaks[3] and peaks[12] - peaks[3] < block


def test_expected_losses_stay_within_the_estimate(tmp_path):
    """Gradients are kept for all blocks, so here the number of blocks matters."""
    recipe = families.recipe(
        allocation="predicted", budget={"kept": 0.7}, recovery={"method": "refit", "copies": 3}
    )
    folder = many_blocks(tmp_path, 12)
    task = memory_task(recipe, prunes=False)
    plain = families.recipe(recovery__copies=3)
    assert task == memory_task(plain, prunes=False, loss_curves=True)
    assert memory_task(plain, prunes=False).probed == 0
    needs = estimate(str(folder), device="cpu", task=task).needs("disk")[0]
    loaded = pruning.load(str(folder), device="cpu", placement="disk")
    with Allocations() as allocations:
        measure_model(loaded, recipe)
    assert allocations.peak <= needs


def test_what_a_killed_process_left_is_swept(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours = tmp_path / f"{own_prefix('blocks-')}x"
    gone = tmp_path / ours.name.replace(f".{os.getpid()}.", f".{ended.pid}.")
    for folder in (gone, ours):
        folder.mkdir()
        (folder / "0.safetensors").write_bytes(b"pruned")
    loaded = pruning.load(str(many_blocks(tmp_path, 2)), device="cpu", placement="disk")
    run = prune(loaded, families.recipe(ffn__ratio=0.3))
    assert not gone.exists() and (ours / "0.safetensors").is_file()
    assert len(list(tmp_path.glob(f"{own_prefix('blocks-')}*/*.safetensors"))) > 2
    del run


def test_the_next_block_is_read_while_one_computes(tmp_path, monkeypatch):
    loaded = pruning.load(str(many_blocks(tmp_path, 5)), device="cpu", placement="disk")
    read, reads = offload.TensorRef.read, []

    def reading(self, dtype):
        ahead = threading.current_thread() is not threading.main_thread()
        reads.append((int(self.name.split(".")[2]), ahead, self.name))
        return read(self, dtype)

    monkeypatch.setattr(offload.TensorRef, "read", reading)
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


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("room", [True, False])
def test_the_next_block_is_sent_while_one_computes(tmp_path, monkeypatch, where, room):
    """Another name of the CPU stands for a card, and a copy for what a stream carries there."""
    card, sent = torch.device("cpu", 0), []

    def send(_sender, tensor, device):
        assert device == card and threading.current_thread() is not threading.main_thread()
        sent.append(tensor.numel())
        return tensor.clone() if room else tensor

    folder = many_blocks(tmp_path, 5)
    whole = pruning.load(str(folder), device="cpu", placement="whole")
    monkeypatch.setattr(opening, "compute_devices", lambda _device: [card])
    monkeypatch.setattr(
        "pruning.models.execution.prefetch.Sender.serves", lambda _sender, device: device == card
    )
    monkeypatch.setattr("pruning.models.execution.prefetch.Sender.send", send)
    loaded = pruning.load(str(folder), device="cpu", placement=where)
    recipe = families.recipe(ffn__ratio=0.3, heads__ratio=0.2)
    windows = families.windows(loaded)
    measured = measure(loaded.model, windows, name="tiny")
    block = sum(p.numel() for p in whole.model.model.layers[0].parameters())
    # every block but the first, once each
    assert sum(sent) == 4 * block
    sent.clear()
    plan = make_plan(measured, recipe)
    mine = apply(loaded.model, plan, recipe, windows).model
    assert sum(sent) == 4 * block
    sent.clear()
    with_gradients(measured, loaded.model, windows)
    assert sum(sent) == 2 * 4 * block  # forwards, and backwards again
    expected = apply(whole.model, plan, recipe, windows).model
    same(replace(whole, model=expected), replace(loaded, model=mine))


def test_what_was_read_ahead_is_forgotten_when_cancelled(tmp_path):
    loaded = pruning.load(str(many_blocks(tmp_path, 4)), device="cpu", placement="disk")
    blocks = loaded.adapter.blocks(loaded.model)
    store = blocks[0].placement.store
    with pytest.raises(Cancelled), offload.resident(blocks[0], then=blocks[1:2]):
        assert store._coming
        with offload.resident(blocks[0]):  # nested, as a block's own forward pass is
            assert store._coming
        raise Cancelled
    assert not store._coming and not store._here


def test_writing_holds_one_shard_at_a_time(tmp_path):
    folder = many_blocks(tmp_path / "dense", 8)
    loaded = pruning.load(str(folder), device="cpu", placement="disk")
    blocks = loaded.adapter.blocks(loaded.model)
    block = sum(p.nbytes for p in blocks[0].parameters())
    write_shards(loaded.model, blocks, tmp_path, limit=2 * block)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 3
    assert all((tmp_path / file).stat().st_size < 2.2 * block for file in files)
    whole = pruning.load(str(folder), device="cpu")
    same(whole, pruning.load(str(tmp_path), device="cpu"))
    same(whole, pruning.load(str(tmp_path), device="cpu", placement="disk"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_gpu_computes_the_same_with_the_next_block_on_its_way(tmp_path, monkeypatch, where):
    folder, sent = many_blocks(tmp_path, 6), []
    send = Sender.send

    def sending(sender, tensor, device):
        sent.append(send(sender, tensor, device))
        return sent[-1]

    monkeypatch.setattr(Sender, "send", sending)
    recipe = families.recipe(ffn__ratio=0.3, heads__ratio=0.2)
    runs = [
        prune(pruning.load(str(folder), device="cuda", placement=place), recipe)
        for place in ("whole", where)
    ]
    assert sent and all(tensor.device.type == "cuda" for tensor in sent)
    assert runs[0].plan == runs[1].plan
    found = [losses(run.pruned, families.token_ids(4)).cpu() for run in runs]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_gpu_holds_one_block(tmp_path, where):
    folder = many_blocks(tmp_path, 24)
    loaded = pruning.load(str(folder), device="cuda", placement=where)
    whole = sum(p.nbytes for p in loaded.adapter.blocks(loaded.model).parameters())
    losses(loaded, families.token_ids(2))  # the libraries' own working space stays
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    losses(loaded, families.token_ids(2))
    assert torch.cuda.max_memory_allocated() - before < whole / 4
