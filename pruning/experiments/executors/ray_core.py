"""Many cells at once on Ray Core: a Ray of this machine, or the cluster that RAY_ADDRESS names.

A cluster needs on every node: the same Headroom with the extra ``ray``, and model, texts and task
rows under the same names (a hub id, or paths in a shared folder). Each worker loads the model by
its name; whether it sees the same weights and texts is checked by the key of its cell. Cells come
back to this process, which stores them, so that nothing but the model and texts need be shared.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

from pruning.artifacts.cell import Cell, Protocol
from pruning.artifacts.events import CancelCheck, stop_if
from pruning.artifacts.recipe import Recipe
from pruning.experiments.cells import CellStore, compute_cell
from pruning.experiments.executors.base import EXECUTORS, Done, Executor, Job, Report
from pruning.experiments.executors.needs import CellNeeds, Request, cell_needs, requests
from pruning.utils.errors import HeadroomError, UsageError, one_line

_RETRIES = 3
"""How often the cell of a worker that was lost is begun again."""
_STARTS = 3
"""On a busy machine Ray may take longer than the half minute that it gives itself."""
_OBJECT_STORE_BYTES = 100 * 2**20
"""Recipes go and cells come: a few kilobytes each."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Order:
    """What a worker needs to know of a cell; ``key``: the name of its file, which says everything
    that its numbers depend on; ``folder``: where relative paths begin."""

    needs: CellNeeds
    protocol: Protocol
    recipe: Recipe | None
    key: str
    folder: str
    threads: int


@dataclass(frozen=True)
class Refusal:
    """A sentence for the user in place of a cell."""

    sentence: str
    is_usage: bool


def compute_order(order: Order) -> Cell | Refusal:
    """A worker's work: load the model, compute the cell."""
    import torch

    from pruning.models.loading import load

    torch.set_num_threads(order.threads)
    with suppress(OSError):
        os.chdir(order.folder)
    needs = order.needs
    try:
        loaded = load(
            needs.source,
            revision=needs.revision,
            dtype=needs.dtype,
            device=needs.device,
            placement=needs.placement,
            task=needs.task,
        )
        store = CellStore(loaded, order.protocol)
        if store.path(order.recipe).name != order.key:
            return Refusal(
                f"A worker on {os.uname().nodename} sees other weights, texts or another version "
                f"of Headroom than this machine; put {needs.source} and the texts into a folder "
                "that all share, and install the same version.",
                False,
            )
        return compute_cell(loaded, order.recipe, order.protocol, store.sources)
    except HeadroomError as error:
        return Refusal(str(error), isinstance(error, UsageError))


class RayCore(Executor):
    """A task of Ray for each cell, with the CPUs, cards and memory that it is estimated to take."""

    works_here = False

    def __init__(self, device: str = "auto", placement: str = "auto") -> None:
        super().__init__(device, placement)
        if find_spec("ray") is None:
            raise UsageError("Ray is not installed; run pip install 'headroom[ray]'.")

    def compute(
        self,
        store: CellStore,
        jobs: Sequence[Job],
        *,
        done: Done,
        report: Report,
        should_cancel: CancelCheck,
    ) -> None:
        stop_if(should_cancel)
        needs = cell_needs(store, [job.recipe for job in jobs], self.device, self.placement)
        with _connected() as ray:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            asked = requests(needs, nodes)
            task, pending = ray.remote(compute_order), {}
            for job, need, request in zip(jobs, needs, asked, strict=True):
                options = task.options(
                    name=job.name,
                    num_cpus=request.cpus,
                    num_gpus=request.gpus,
                    memory=request.memory_bytes,
                    max_retries=_RETRIES,
                )
                pending[options.remote(_order(store, job, need, request))] = job
            report(f"Ray: {len(jobs)} cells, {asked[0].sentence()}")
            try:
                while pending:
                    stop_if(should_cancel)
                    # not inside Ray, which would make a signal's exception one of its own
                    time.sleep(_POLL_SECONDS)
                    ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
                    for reference in ready:
                        job = pending.pop(reference)
                        done(job, _cell(ray, reference, job))
            finally:
                for reference in pending:
                    ray.cancel(reference, force=True)


def _order(store: CellStore, job: Job, needs: CellNeeds, request: Request) -> Order:
    key = store.path(job.recipe).name
    return Order(needs, store.protocol, job.recipe, key, os.getcwd(), request.cpus)


def _cell(ray: Any, reference: Any, job: Job) -> Cell:
    """The cell that came back; raises HeadroomError, and what the worker raised unforeseen."""
    try:
        found = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise HeadroomError(
            f"Ray lost the worker of {job.name!r} {1 + _RETRIES} times ({one_line(error, 60)}); "
            "finished cells are kept, so run it again, with more memory or fewer samples."
        ) from error
    if isinstance(found, Refusal):
        raise (UsageError if found.is_usage else HeadroomError)(found.sentence)
    return found


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray, which this process has joined or started: what was started here ends here."""
    ray = import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with TemporaryDirectory(prefix="headroom-ray-", dir=_short_folder()) as folder:
        try:
            with _own_handlers():
                _start(ray, folder)
            yield ray
        finally:
            ray.shutdown()


def _start(ray: Any, folder: str) -> None:
    """Join the cluster of RAY_ADDRESS, or start Ray here with its files in ``folder``; raises
    HeadroomError."""
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"logging_level": "error", "log_to_driver": False}
    own = {"object_store_memory": _OBJECT_STORE_BYTES, "_temp_dir": folder}
    for left in reversed(range(_STARTS)):
        try:
            if address:
                ray.init(address, **quiet)
            else:
                ray.init("local", include_dashboard=False, **quiet, **own)
            return
        except Exception as error:  # what it raises when it is late has no class of its own
            ray.shutdown()
            if not left:
                where = f"at {address}" if address else "on this machine"
                raise HeadroomError(
                    f"Ray {where} does not start: {one_line(error)}; check RAY_ADDRESS."
                ) from error


def _short_folder() -> str | None:
    """Where Ray's sockets have room for their names, which may have 107 letters."""
    return "/tmp" if os.path.isdir("/tmp") else None


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray replaces when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


EXECUTORS.add(
    "ray",
    RayCore,
    title="Ray Core",
    summary="Many cells at once, here or on the cluster that RAY_ADDRESS names.",
    source="Moritz et al., OSDI 2018",
    place=20,
)
