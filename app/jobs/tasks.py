"""What worker threads do. The engine (and with it torch) is imported only inside the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from app.jobs import memory
from app.jobs.job import Work
from app.jobs.model_store import ModelStore
from pruning.artifacts.events import Progress, stop_if
from pruning.artifacts.recipe import ModelChoice, Recipe
from pruning.artifacts.shapes import ModelShape
from pruning.sweep import Sweep, SweepPoint
from pruning.utils.errors import HeadroomError, OutOfMemory


@dataclass(frozen=True)
class Facts:
    """What a loaded model is, in plain values: pages can show it without torch."""

    source: str
    revision: str | None
    shape: ModelShape
    parameters: int
    bytes: int
    dtype: str
    device: str
    tokenizer: str | None
    vocabulary: int


def _loaded(store: ModelStore, choice: ModelChoice, device: str, progress: Any) -> Any:
    """The model from the store, loaded if it is not there."""

    def load(choice: ModelChoice, device: str) -> Any:
        from pruning.models.loading import load

        _make_room(store, choice, device)
        return load(choice.source, revision=choice.revision, dtype=choice.dtype, device=device)

    progress(Progress("load", 0, 1, f"Loading {choice.source}"))
    found = store.get(choice, device, load)
    progress(Progress("load", 1, 1, f"Loaded {choice.source}"))
    return found


def _make_room(store: ModelStore, choice: ModelChoice, device: str) -> None:
    """Drop models that must go for this one; raise OutOfMemory when it fits neither whole nor
    block by block even so: trying would end the server."""
    from pruning.models.loading.memory_estimate import estimate

    def ask() -> Any:
        return estimate(choice.source, revision=choice.revision, dtype=choice.dtype, device=device)

    try:
        found = ask()
        store.make_room(found.weight_bytes)
        if not found.fits:
            store.make_room(sys.maxsize)
            found = ask()
    except HeadroomError:
        return  # loading says better what is wrong
    if found.placement() is None and found.weight_bytes > found.free_bytes:
        raise OutOfMemory(found.sentence())


def estimating(choice: ModelChoice, device: str) -> Work:
    """How much memory ``choice`` will need."""

    def work(progress, should_cancel):
        from pruning.models.loading.memory_estimate import estimate

        return estimate(choice.source, revision=choice.revision, dtype=choice.dtype, device=device)

    return work


def loading(store: ModelStore, choice: ModelChoice, device: str) -> Work:
    """Load ``choice`` into the store; the result is its :class:`Facts`."""

    def work(progress, should_cancel):
        return _facts(_loaded(store, choice, device, progress))

    return work


def _facts(loaded: Any) -> Facts:
    weights = list(loaded.model.parameters())
    tokenizer = loaded.tokenizer
    return Facts(
        source=loaded.source,
        revision=loaded.revision,
        shape=loaded.adapter.model_shape(loaded.model),
        parameters=sum(p.numel() for p in weights),
        bytes=sum(p.numel() * p.element_size() for p in weights),
        dtype=loaded.dtype,
        device=loaded.device,
        tokenizer=None if tokenizer is None else type(tokenizer).__name__,
        vocabulary=0 if tokenizer is None else len(tokenizer),
    )


def measuring(store: ModelStore, recipe: Recipe, device: str) -> Work:
    """One pass over the calibration text; the result is a Measurement."""

    def work(progress, should_cancel):
        loaded = _loaded(store, recipe.model, device, progress)
        stop_if(should_cancel)
        from pruning.pipeline import measure_model

        return measure_model(loaded, recipe, progress=progress, should_cancel=should_cancel)

    return work


def looking(store: ModelStore, choice: ModelChoice, sentence: str, device: str) -> Work:
    """Where the heads look in ``sentence``; the result is its AttentionPatterns."""

    def work(progress, should_cancel):
        loaded = _loaded(store, choice, device, progress)
        stop_if(should_cancel)
        from pruning.measure.attention_maps import attention_patterns

        return attention_patterns(loaded, sentence, progress=progress, should_cancel=should_cancel)

    return work


def pruning_run(store: ModelStore, recipe: Recipe, device: str) -> Work:
    """The whole run of ``recipe``; the result is a PruneRun."""

    def work(progress, should_cancel):
        loaded = _loaded(store, recipe.model, device, progress)
        stop_if(should_cancel)
        from pruning.pipeline import prune

        pauses = 0.0

        def told(step: Progress) -> None:
            nonlocal pauses
            started = time.perf_counter()
            progress(step)  # returns late when the visitor has paused the job
            pauses += time.perf_counter() - started

        run = prune(loaded, recipe, progress=told, should_cancel=should_cancel)
        seconds = run.seconds - pauses
        return replace(run, seconds=seconds, report=replace(run.report, seconds=round(seconds, 3)))

    return work


def without_models(run: Any) -> Any:
    """A run to remember when its models have to go: report, plan and errors stay."""
    return replace(run, dense=None, pruned=None)


def has_models(run: Any) -> bool:
    """False once :func:`without_models` was called on it."""
    return run.pruned is not None


def run_storage_bytes(run: Any) -> dict[int, int]:
    """Storages of both models of a PruneRun and their bytes."""
    return memory.storages((run.dense.model, run.pruned.model))


def sweeping(
    store: ModelStore, wanted: Sweep, device: str, on_point: Callable[[SweepPoint], None]
) -> Work:
    """All points of ``wanted``; each is told to ``on_point`` as it is there."""

    def work(progress, should_cancel):
        from pruning.sweep import sweep

        model = wanted.recipe.model
        loaded = _loaded(store, model, device, progress)
        stop_if(should_cancel)
        return sweep(
            loaded, wanted, on_point=on_point, progress=progress, should_cancel=should_cancel
        )

    return work
