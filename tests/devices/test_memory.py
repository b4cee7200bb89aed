"""What a pretended card has free, what passes through CPU memory, the peak of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import pruning
from pruning.models.limits import PAIR_ENTRIES, STREAM_BYTES
from pruning.models.loading import from_disk, loader
from pruning.models.loading.memory_estimate import estimate, free_bytes
from pruning.pipeline import prune
from tests.helpers import families
from tests.helpers.on_device import CUT, moved
from tests.helpers.virtual_device import virtual_device


@pytest.fixture(scope="module")
def compact_folder(tmp_path_factory):
    """A pruned model of two tied matrices, in the compact form."""
    folder = tmp_path_factory.mktemp("saved") / "compact"
    run = prune(families.wrap(families.build("gpt2"), "gpt2"), families.recipe(**CUT))
    pruning.save(run, folder)
    return folder


def _read(folder, placement, monkeypatch):
    """Where the weights are once they were read, and the loaded model."""
    places: list[str] = []

    def noting(model, *rest):
        places.extend(str(weight.device) for weight in model.parameters())
        return placed(model, *rest)

    placed = loader.placed
    monkeypatch.setattr(loader, "placed", noting)
    return places, pruning.load(str(folder), device="cuda", placement=placement)


@pytest.mark.parametrize("placement", ["whole", "spread"])
@pytest.mark.parametrize("form", ["dense", "compact"])
def test_weights_go_straight_to_their_cards(
    placement, form, model_folder, compact_folder, monkeypatch
):
    folder = model_folder if form == "dense" else compact_folder
    with virtual_device("cuda", cards=2):
        places, loaded = _read(folder, placement, monkeypatch)
        there = [str(weight.device) for weight in loaded.model.parameters()]
    assert places == there
    assert {"cuda:0"} == set(there) if placement == "whole" else {"cuda:0", "cuda:1"} == set(there)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_compact_model_is_the_same_wherever_it_is_read_to(dtype, compact_folder):
    here = pruning.load(str(compact_folder), device="cpu", dtype=dtype).model
    with virtual_device("cuda"):
        there = pruning.load(str(compact_folder), device="cuda", dtype=dtype, placement="whole")
        found = {name: tensor.cpu() for name, tensor in there.model.state_dict().items()}
        assert there.model.lm_head.weight is there.model.get_input_embeddings().weight
    expected = here.state_dict()
    assert found.keys() == expected.keys() and here.dtype == here.config.dtype
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_from_disk_what_lies_outside_the_blocks_is_never_all_in_cpu_memory(
    model_folder, monkeypatch
):
    outside_to, places = from_disk._outside_to, []

    def noting(model, adapter, device):
        inside = {id(weight) for weight in adapter.blocks(model).parameters()}
        places.extend(w.device.type for w in model.parameters() if id(w) not in inside)
        return outside_to(model, adapter, device)

    monkeypatch.setattr(from_disk, "_outside_to", noting)
    with virtual_device("cuda"):
        pruning.load(str(model_folder), device="cuda", placement="disk")
    assert places and set(places) == {"cuda"}


def test_what_passes_through_cpu_memory_is_counted(model_folder):
    with virtual_device("cuda"):
        needed = estimate(str(model_folder), device="cuda")
        task = type(needed.task)(samples=1, seq_len=2, prunes=False)
        few = estimate(str(model_folder), device="cuda", task=task)
    few = replace(few, device="mps")  # to which nothing is sent ahead
    assert few.needs("memory")[1] == few.weight_bytes
    assert few.activation_bytes == 2 * 48 * 4
    assert few.needs("whole")[1] == 0  # the stream stays on the device
    assert few.needs("whole")[0] == few.weight_bytes + few.working_bytes + few.activation_bytes
    many = replace(few, task=replace(task, samples=STREAM_BYTES // few.activation_bytes + 1))
    assert many.needs("whole")[1] == many.activation_bytes > STREAM_BYTES
    blocks, buffers = needed.sizes.block_parameters * 4, 2 * needed.sizes.largest_block * 4
    held = needed.activation_bytes + blocks + needed.pruned_bytes + buffers
    assert needed.needs("memory")[1] == held


def test_the_comparison_of_all_pairs_of_heads_is_counted(model_folder):
    with virtual_device("cuda"):
        found = estimate(str(model_folder), device="cuda")
    task = replace(found.task, samples=8, seq_len=64, prunes=False)
    here = replace(found, task=task, device="cpu").working_bytes
    there = replace(found, task=task).working_bytes
    pairs = found.sizes.heads * (found.sizes.heads + 1) // 2
    assert there - here == 2 * 4 * pairs * 2048 * 65 // 2
    long = replace(found, task=replace(task, seq_len=4096))
    assert long._comparing_bytes == 2 * 4 * PAIR_ENTRIES


def test_the_allocators_cache_is_free(monkeypatch):
    with virtual_device("cuda"):
        free = free_bytes("cuda")
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda *_: 5 << 30)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda *_: 2 << 30)
        assert free_bytes("cuda") == free + (3 << 30)


def test_of_several_cards_the_fullest_decides(model_folder, monkeypatch):
    room = {"cuda": 80 << 30, "cuda:0": 80 << 30, "cuda:1": 1 << 10}
    with virtual_device("cuda", cards=2):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (room[device], 80 << 30))
        needed = estimate(str(model_folder), device="cuda")
    assert needed.fits_as("whole") and not needed.fits_as("spread")
    assert needed.placement() == "whole"
    assert "has 0.00 GB free" in needed.sentence("spread")


def test_the_peak_of_a_run_is_its_own_and_of_all_cards(monkeypatch):
    peaks = {"cuda:0": 7, "cuda:1": 7}
    with virtual_device("cuda", cards=2):
        loaded = moved("llama_grouped", "cuda", cards=2)
        patch = {"reset_peak_memory_stats": lambda d: peaks.update({str(d): 3})}
        patch["max_memory_allocated"] = lambda d: peaks[str(d)]
        for name, call in patch.items():
            monkeypatch.setattr(torch.cuda, name, call)
        run = prune(loaded, families.recipe(**CUT))
    assert run.report.peak_memory_bytes == 6
