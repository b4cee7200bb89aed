"""What worker threads do. The engine (and with it torch) is imported only inside the work."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from app import settings
from app.jobs import memory
from app.jobs.job import Task
from app.jobs.model_store import ModelStore
from app.jobs.progress import (
    CELLS,
    LOAD,
    LOOK,
    MEASURE,
    POINTS,
    Step,
    measure_steps,
    prune_steps,
    question_steps,
)
from pruning.artifacts.comparison import Questions, Speed
from pruning.artifacts.events import Progress, stop_if
from pruning.artifacts.recipe import ModelChoice, Recipe
from pruning.artifacts.shapes import ModelShape
from pruning.experiments.base import Experiment
from pruning.experiments.request import Request, read_texts
from pruning.experiments.result import Result
from pruning.experiments.run import run_experiment
from pruning.experiments.table import result_of
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
    placement: str = "one device"


_IMPORTING = threading.Lock()


def import_engine() -> None:
    """Import what works with models, before anything else of it is imported. One thread at a time:
    who comes while transformers begins gets a module that is not complete."""
    with _IMPORTING:
        _import_engine()


@cache
def _import_engine() -> None:
    import pruning.evaluate
    import pruning.pipeline  # noqa: F401

    memory.leave_out_of_collections()  # once, before there is a model that may have to go


def on_model(
    store: ModelStore, choice: ModelChoice, device: str, use: Callable[..., Any], *steps: Step
) -> Task:
    """``use(loaded, progress=, should_cancel=)`` on the model from the store, which is loaded if
    it is not there; ``steps`` are those of ``use``."""

    def work(progress, should_cancel):
        progress(Progress("load", 0, 1, f"Loading {choice.source}"))
        import_engine()
        loaded = store.get(choice, device, partial(_load, store))
        progress(Progress("load", 1, 1, f"Loaded {choice.source}"))
        stop_if(should_cancel)
        return use(loaded, progress=progress, should_cancel=should_cancel)

    return Task(work, (LOAD, *steps))


def _load(store: ModelStore, choice: ModelChoice, device: str) -> Any:
    from pruning.models.loading import load

    _make_room(store, choice, device)
    return load(choice.source, revision=choice.revision, dtype=choice.dtype, device=device)


def _make_room(store: ModelStore, choice: ModelChoice, device: str) -> None:
    """Drop models that must go for this one; raise UsageError when it is larger than allowed,
    OutOfMemory when it fits neither whole nor block by block even so: trying would end the
    server."""
    from pruning.models.loading.memory_estimate import estimate

    def ask() -> Any:
        return estimate(choice.source, revision=choice.revision, dtype=choice.dtype, device=device)

    try:
        needed = ask()
    except HeadroomError:
        return  # loading says better what is wrong
    settings.current().check_size(choice.source, needed.weight_bytes)
    store.make_room(needed.weight_bytes)
    if not needed.fits:
        store.make_room(sys.maxsize)
        needed = ask()
    if needed.placement() is None and needed.weight_bytes > needed.free_bytes:
        raise OutOfMemory(needed.sentence())


def estimating(choice: ModelChoice, device: str) -> Task:
    """How much memory ``choice`` will need."""

    def work(progress, should_cancel):
        import_engine()
        from pruning.models.loading.memory_estimate import estimate

        return estimate(choice.source, revision=choice.revision, dtype=choice.dtype, device=device)

    return Task(work)


def loading(store: ModelStore, choice: ModelChoice, device: str) -> Task:
    """Load ``choice`` into the store; the result is its :class:`Facts`."""
    return on_model(store, choice, device, lambda loaded, **callbacks: _facts(loaded))


SPEED_TOKENS, AUTOCAST_TOKENS = 128, 512
"""Of more tokens, for the weights are brought to bfloat16 first."""


def preload(
    store: ModelStore, choice: ModelChoice, device: str, first: Callable[[Any], Any]
) -> tuple[Speed, Speed | None] | None:
    """Load ``choice`` and what prunes and compares, so that a run need not, and do ``first`` with
    it. Gives how fast it reads SPEED_TOKENS and writes, by itself and where products are taken in
    bfloat16 (None: nothing is gained by that here); None where it was loaded before. Raises what
    loading raises."""
    import_engine()
    from pruning.evaluate import tokens_per_second
    from pruning.utils.precision import autocast_dtype_of, autocast_in

    found = []

    def load(choice: ModelChoice, device: str) -> Any:
        loaded = _load(store, choice, device)
        # before anyone has it: two threads must never run one model
        model, quick = loaded.model, None
        own = tokens_per_second(model, prompt_tokens=SPEED_TOKENS, new_tokens=4, repeats=2)
        if (dtype := autocast_dtype_of("auto", model)) is not None:
            how = {"prompt_tokens": AUTOCAST_TOKENS, "new_tokens": 1, "repeats": 1}
            with autocast_in(dtype, model.device):
                quick = tokens_per_second(model, **how)
        found.append((own, quick))
        first(loaded)
        return loaded

    store.get(choice, device, load)
    return found[0] if found else None


def _facts(loaded: Any) -> Facts:
    from pruning.models.loading.memory_needs import PLACEMENT_TITLES

    weights = list(loaded.model.parameters())
    tokenizer = loaded.tokenizer
    return Facts(
        source=loaded.source,
        revision=loaded.revision,
        shape=loaded.shape,
        parameters=sum(p.numel() for p in weights),
        bytes=sum(p.numel() * p.element_size() for p in weights),
        dtype=loaded.dtype,
        device=loaded.device,
        tokenizer=None if tokenizer is None else type(tokenizer).__name__,
        vocabulary=0 if tokenizer is None else len(tokenizer),
        placement=PLACEMENT_TITLES[loaded.placement],
    )


def measuring(store: ModelStore, recipe: Recipe, device: str) -> Task:
    """One pass over the calibration text; the result is a Measurement."""

    def use(loaded, **callbacks):
        from pruning.pipeline import measure_model

        return measure_model(loaded, recipe, **callbacks)

    return on_model(store, recipe.model, device, use, *measure_steps(recipe))


def looking(store: ModelStore, choice: ModelChoice, sentence: str, device: str) -> Task:
    """Where the heads look in ``sentence``; the result is its AttentionPatterns."""

    def use(loaded, **callbacks):
        from pruning.measure.attention_maps import attention_patterns

        return attention_patterns(loaded, sentence, **callbacks)

    return on_model(store, choice, device, use, LOOK)


def run_steps(recipe: Recipe, questions: Questions | None = None) -> tuple[Step, ...]:
    """The steps of :func:`pruning_run`."""
    after = () if questions is None else question_steps(questions)
    return (LOAD, *prune_steps(recipe), *after)


def pruning_run(
    store: ModelStore,
    recipe: Recipe,
    device: str,
    questions: Questions | None = None,
    timed: Callable[[tuple[Step, ...]], tuple[Step, ...]] | None = None,
) -> Task:
    """The whole run of ``recipe``; the result is a PruneRun, whose time leaves pauses out. At the
    end both models are asked ``questions`` (None: nothing); cancelling that keeps the run.
    ``timed`` weighs the steps by the seconds that they will take."""

    def use(loaded, progress, should_cancel):
        from pruning.evaluate import compare
        from pruning.pipeline import prune

        paused = 0.0

        def report(step: Progress) -> None:
            nonlocal paused
            started = time.perf_counter()
            progress(step)  # returns late when the visitor has paused the job
            paused += time.perf_counter() - started

        run = prune(loaded, recipe, progress=report, should_cancel=should_cancel)
        seconds = run.seconds - paused
        run = replace(run, seconds=seconds, report=replace(run.report, seconds=round(seconds, 3)))
        if questions is None:
            return run
        callbacks = {"progress": progress, "should_cancel": should_cancel}
        return replace(run, comparison=compare(run.dense, run.pruned, questions, **callbacks))

    task = on_model(store, recipe.model, device, use)
    steps = run_steps(recipe, questions)
    return replace(task, steps=steps if timed is None else timed(steps))


def sweeping(
    store: ModelStore, wanted: Sweep, device: str, on_point: Callable[[SweepPoint], None]
) -> Task:
    """All points of ``wanted``; ``on_point`` gets each as soon as it is there."""

    def use(loaded, **callbacks):
        from pruning.sweep import sweep

        return sweep(loaded, wanted, on_point=on_point, **callbacks)

    return on_model(store, wanted.recipe.model, device, use, POINTS)


def experimenting(
    store: ModelStore,
    choice: ModelChoice,
    device: str,
    experiment: Experiment,
    request: Request,
    on_result: Callable[[Result], None],
) -> Task:
    """All cells of ``experiment``; ``on_result`` gets the table as far as it is after each."""

    def use(loaded, **callbacks):
        found = []

        def on_cell(*pair):
            found.append(pair)
            on_result(result_of(experiment, request, loaded.source, loaded.shape, found))

        result = run_experiment(loaded, experiment, request, on_cell=on_cell, **callbacks)
        on_result(result)
        return result

    steps = {"grid": (CELLS,), "heads": (MEASURE, CELLS)}.get(experiment.kind, (MEASURE,))
    task = on_model(store, choice, device, use, *steps)

    def work(progress, should_cancel):
        progress(Progress("load", 0, 1, "Reading the texts"))
        read_texts(experiment, request)
        return task(progress, should_cancel)

    return replace(task, run=work)


def without_models(run: Any) -> Any:
    """A run to remember when its models have to go: report, plan and errors stay."""
    return replace(run, dense=None, pruned=None) if has_models(run) else run


def has_models(run: Any) -> bool:
    """False once :func:`without_models` was called on it."""
    return run.pruned is not None


def run_storage_bytes(run: Any) -> dict[int, int]:
    """Storages of both models of a PruneRun and their bytes."""
    return memory.storages((run.dense.model, run.pruned.model))
