"""Dropped models give their memory back: measured on the process, with a model of 200 MB."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from app.jobs import memory
from app.jobs.model_store import ModelStore
from app.jobs.queue import JobManager
from pruning.artifacts.rules import ModelChoice
from pruning.utils.errors import Cancelled
from tests.helpers import PATIENCE
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MB = 1 << 20


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=64,
    )
    made = LlamaForCausalLM(config)
    made.itself = [made]  # a cycle: only the collector can end it
    return made


def size_of(made) -> int:
    return sum(memory.storages([made]).values())


@pytest.fixture
def no_collector():
    """The collector must not run by luck."""
    model()
    memory.free_memory()
    gc.disable()
    yield
    gc.enable()


def test_the_store_gives_back_what_it_drops(no_collector):
    store = ModelStore(count=1)
    before = resident()
    store.get(ModelChoice(source="a/a"), "cpu", lambda *_: SimpleNamespace(model=model()))
    held = resident() - before
    assert held > 150 * MB
    store.get(ModelChoice(source="b/b"), "cpu", lambda *_: SimpleNamespace(model=torch.nn.ReLU()))
    assert len(store) == 1
    assert resident() - before < held / 4


def test_room_is_made_before_a_model_is_loaded(no_collector):
    store = ModelStore(count=3, byte_limit=300 * MB)
    store.get(ModelChoice(source="a/a"), "cpu", lambda *_: SimpleNamespace(model=model()))
    store.make_room(50 * MB)
    assert len(store) == 1
    store.make_room(250 * MB)
    assert len(store) == 0


@pytest.mark.parametrize("ending", ["forgotten", "cancelled"])
def test_a_job_gives_back_its_model(no_collector, ending):
    manager = JobManager(keep_heavy_each=1)
    gate = threading.Event()
    before = resident()

    def run(progress, should_cancel):
        made = model()
        gate.wait(PATIENCE)
        if ending == "cancelled":
            raise Cancelled("Cancelled.")
        return made

    storage_bytes = {"storage_bytes": lambda made: memory.storages([made])}
    job = manager.submit("prune", "Prune", run, owner="me", queue_name="cpu", **storage_bytes)
    wait_for(lambda: resident() - before > 150 * MB)
    gate.set()
    wait_for(lambda: not job.active)
    if ending == "forgotten":
        held = sum(job.storages.values())
        assert held > 150 * MB
        job = manager.submit(
            "prune",
            "Prune",
            lambda p, c: torch.nn.Linear(2, 2),
            owner="me",
            queue_name="cpu",
            **storage_bytes,
        )
    wait_for(lambda: resident() - before < 50 * MB)


def test_shared_storages_count_once():
    first, second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    second.weight = first.weight
    assert size_of(first) == 80
    assert sum(memory.storages([first, second]).values()) == 80 + 16
