"""Executors: what is asked of a cluster for a cell, and the same table whoever computes it."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest

import pruning
from pruning.api import from_memory
from pruning.artifacts.cell import Protocol
from pruning.cli.main import main
from pruning.experiments.cells import CellStore
from pruning.experiments.executors.base import EXECUTORS
from pruning.experiments.executors.needs import CellNeeds, Request, cell_needs, requests
from pruning.models.loading.sizes import EVALUATION
from pruning.sweep import Sweep, sweep
from pruning.utils.errors import Cancelled, OutOfMemory, UsageError
from tests.helpers import families
from tests.helpers.waiting import wait_for

GB = 10**9
BASE = families.recipe().changed(
    calibration={"source": "sample", "samples": 8, "seq_len": 16}, ffn={"ratio": 0.25}
)
TEXT = {"text": "sample", "seq_len": 16, "windows": 4}
WANTED = Sweep(BASE, "ratio", (0.2, 0.4), ("fast", "l2"), **TEXT)


@pytest.fixture(scope="module")
def tiny(model_folder):
    return pruning.load(str(model_folder), device="cpu")


def need(gigabytes, cards=0):
    return CellNeeds("m", None, None, "cpu", "whole", EVALUATION, gigabytes * GB, cards)


def test_cpus_are_divided_among_the_cells_that_memory_and_cards_allow():
    node = {"CPU": 16.0, "memory": 40.0 * GB, "GPU": 4.0}
    few = {"CPU": 8.0, "memory": 9.0 * GB}
    assert requests([need(10)] * 9, [node]) == [Request(4, 0, 10 * GB)] * 9
    assert requests([need(10)] * 2, [node]) == [Request(8, 0, 10 * GB)] * 2
    assert requests([need(1)] * 99, [node]) == [Request(1, 0, GB)] * 99
    assert requests([need(2, cards=2)] * 9, [node]) == [Request(8, 2, 2 * GB)] * 9
    # a request must suit every node that has the memory
    assert requests([need(8), need(1)], [node, few]) == [Request(8, 0, 8 * GB), Request(4, 0, GB)]
    with pytest.raises(OutOfMemory, match="50.0 GB of memory, .* largest 40.0 GB"):
        requests([need(50)], [node, few])
    with pytest.raises(OutOfMemory, match="and 5 GPUs"):
        requests([need(1, cards=5)], [node])


def test_a_cell_is_estimated_by_its_own_recipe(tiny):
    store = CellStore(tiny, Protocol(("sample",), 16, 4))
    long = BASE.changed(calibration={"samples": 512, "seq_len": 48})
    dense, small, large = cell_needs(store, [None, BASE, long], "cpu", "auto")
    assert not dense.task.prunes and small.cpu_bytes < large.cpu_bytes
    assert (small.device, small.placement, small.cards) == ("cpu", "whole", 0)
    assert (large.task.samples, small.task.samples) == (512, 8)
    (disk,) = cell_needs(store, [long], "cpu", "disk")
    assert disk.placement == "disk"


def test_what_cannot_work_is_one_sentence_before_any_work(tiny, tokenizer, monkeypatch, capsys):
    pytest.importorskip("ray")
    memory = from_memory(families.llama_grouped(vocab_size=200).eval(), tokenizer)
    store = CellStore(memory, Protocol(("sample",), 16, 4))
    with pytest.raises(UsageError, match="save it and name the folder"):
        cell_needs(store, [None], "cpu", "auto")
    words = ["sweep", tiny.source, "--values", "0.2", "--device", "cpu", "--executor"]
    assert main([*words, "rai"]) == 2
    assert "did you mean 'ray'" in capsys.readouterr().err
    assert main(["reproduce", "figure3", tiny.source, "--quick", "--executor", "ray"]) == 2
    assert "figure3 has no cells" in capsys.readouterr().err
    monkeypatch.setattr("pruning.experiments.executors.ray_core.find_spec", lambda name: None)
    assert main([*words, "ray"]) == 2
    err = capsys.readouterr().err
    assert "pip install 'headroom[ray]'" in err and err.count("\n") == 1


def ray_processes():
    """Of Ray, begun by this process; its workers by what they do now."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            found[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            pass
    return {pid: line for pid, line in found.items() if "ray" in line}


def at_work():
    """Workers that are computing a cell."""
    return [pid for pid, line in ray_processes().items() if line.startswith("ray::Fast")]


def test_an_executor(drop_in, tiny, monkeypatch):
    """Takes the cells from behind; the points stay in the order that was asked for."""
    drop_in(
        EXECUTORS,
        "backwards.py",
        """
        from pruning.experiments.cells import compute_cell
        from pruning.experiments.executors.base import EXECUTORS, Executor

        class Backwards(Executor):
            def compute(self, store, jobs, *, done, report, should_cancel):
                for job in reversed(jobs):
                    report(f"from behind: {job.name}")
                    done(job, compute_cell(store.loaded, job.recipe, store.protocol, store.sources))

        EXECUTORS.add("backwards", Backwards, TEXTS)
        """,
    )
    here = sweep(tiny, WANTED)
    monkeypatch.setenv("HEADROOM_CACHE", os.environ["HEADROOM_CACHE"] + "-theirs")
    said = []
    there = sweep(
        tiny,
        WANTED,
        executor=EXECUTORS["backwards"](),
        progress=lambda step: said.append(step.message),
    )
    assert [point.perplexity for point in there] == [point.perplexity for point in here]
    assert any("from behind" in message for message in said)


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_a_cancel_leaves_nothing(tiny, monkeypatch):
    pytest.importorskip("ray")
    here = sweep(tiny, WANTED)
    killed, ended = [], threading.Event()

    def strike():
        while not (killed or ended.is_set()):
            killed.extend(at_work()[:1])
            time.sleep(0.005)
        for process in killed:
            os.kill(process, signal.SIGKILL)

    monkeypatch.setenv("HEADROOM_CACHE", os.environ["HEADROOM_CACHE"] + "-ray")
    handler = signal.getsignal(signal.SIGTERM)
    striker = threading.Thread(target=strike)
    striker.start()
    try:
        there = sweep(tiny, WANTED, executor=EXECUTORS["ray"]("cpu"))
    finally:
        ended.set()
        striker.join()
    assert killed and signal.getsignal(signal.SIGTERM) is handler
    assert [point.preset for point in there] == [point.preset for point in here]
    for one, other in zip(there, here, strict=True):
        assert one.perplexity == pytest.approx(other.perplexity, rel=1e-6)
        assert (one.kept, one.parameters, one.protocol) == (
            other.kept,
            other.parameters,
            other.protocol,
        )
    wait_for(lambda: not ray_processes())

    more = Sweep(BASE, "ratio", (0.2, 0.3), ("fast",), **TEXT)
    done = []
    with pytest.raises(Cancelled):
        sweep(
            tiny,
            more,
            executor=EXECUTORS["ray"]("cpu"),
            on_point=done.append,
            should_cancel=lambda: bool(at_work()),
        )
    assert [point.value for point in done] == [None, 0.2]  # finished before
    wait_for(lambda: not ray_processes())
