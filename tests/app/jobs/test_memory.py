"""Dropped models give their memory back: measured on the process, with a model of 200 MB."""

from __future__ import annotations

import gc
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from streamlit import config
from transformers import LlamaConfig, LlamaForCausalLM

from app.jobs import memory, tasks
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


def test_a_redraw_is_not_followed_by_a_look_at_every_module():
    """Streamlit would collect after each script, which takes a third of a second with torch."""
    config.get_config_options(force_reparse=True)
    assert config.get_option("runner.postScriptGC") is False
    before = gc.get_freeze_count()
    memory.leave_out_of_collections()
    assert gc.get_freeze_count() > before and len(gc.get_objects()) < 1000


def test_the_engine_is_imported_by_one_thread_at_a_time(monkeypatch):
    at_work, most, started = [], [], threading.Event()

    def imported():
        at_work.append(1)
        most.append(len(at_work))
        started.wait(PATIENCE)
        time.sleep(0.05)  # long enough for the other one to come in, were it let in
        at_work.pop()

    monkeypatch.setattr(tasks, "_import_engine", imported)
    threads = [threading.Thread(target=tasks.import_engine) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert most == [1, 1]


@pytest.mark.parametrize("said, least", [("268435456\n", 1), ("max\n", 0), (None, 0)])
def test_a_container_may_have_less_than_the_machine(monkeypatch, tmp_path, said, least):
    whole = memory.total_bytes()
    monkeypatch.setattr(memory, "CONTAINER", tmp_path / "memory.max")
    if said is not None:
        memory.CONTAINER.write_text(said)
    assert memory.total_bytes() == (256 * MB if least else whole)
