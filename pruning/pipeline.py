"""The whole way from a loaded model and a recipe to a pruned one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch

from pruning.artifacts.events import CancelCheck, ProgressCallback, ignore, never
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import ENOUGH_WINDOWS, Recipe
from pruning.artifacts.report import make_report
from pruning.data import Windows, calibration_windows
from pruning.data.augment import resampled
from pruning.evaluate.speed import peak_memory_bytes
from pruning.measure import cached_measurement, measure, measurement_key, with_gradients
from pruning.measure.loss_curves import with_loss_curves
from pruning.models.fingerprint import fingerprint
from pruning.models.limits import PROBES
from pruning.models.loading.loaded import LoadedModel
from pruning.models.loading.sizes import Task
from pruning.planning.planner import make_plan, needs_gradients, needs_loss_curves
from pruning.recovery import RECOVERIES
from pruning.recovery.solvers.normal_equations import Stopwatch
from pruning.surgery.apply import Applied, apply
from pruning.surgery.result import PruneRun
from pruning.utils.digest import sha256_of
from pruning.utils.errors import OutOfMemory
from pruning.utils.precision import autocast_dtype_of


def windows_for(loaded: LoadedModel, recipe: Recipe) -> Windows:
    """Calibration windows of the measurement; raises SourceError, UsageError."""
    calibration = recipe.calibration
    return _windows(loaded, recipe, calibration.source, calibration.samples, calibration.seq_len)


def gradient_windows(loaded: LoadedModel, recipe: Recipe) -> Windows:
    """Windows of the gradient pass, no longer than the model's positions."""
    rule = recipe.calibration
    seq_len = min(rule.gradient_seq_len, loaded.adapter.max_positions(loaded.model.config))
    return _windows(loaded, recipe, rule.source, rule.gradient_samples, seq_len)


def recovery_windows(
    loaded: LoadedModel,
    recipe: Recipe,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Windows:
    """Windows of the recovery: those of the measurement, or ``recovery.samples`` of them, each
    followed by ``recovery.copies`` copies in which the model has rewritten half of the tokens."""
    rule = recipe.recovery
    samples = rule.samples or recipe.calibration.samples
    seq_len = recipe.calibration.seq_len
    text = _windows(loaded, recipe, recipe.calibration.source, samples, seq_len)
    copies = _copies(recipe)
    if copies == 0:
        return text
    drawn = resampled(
        loaded.model,
        text.ids,
        copies,
        recipe.seed,
        products=_autocast(loaded, recipe),
        progress=progress,
        should_cancel=should_cancel,
    )
    families = torch.cat([text.ids[:, None], drawn.reshape(samples, copies, -1)], dim=1)
    return replace(text, ids=families.flatten(0, 1), family=1 + copies)


def memory_task(recipe: Recipe, *, prunes: bool = True, curves: bool = False) -> Task:
    """What the memory for a prune, or only its measurement, must be estimated for; ``curves``:
    with expected losses in any case."""
    rule = recipe.calibration
    texts = recipe.recovery.samples or rule.samples
    curves = curves or needs_loss_curves(recipe)
    # the expected losses come from what the recovery will be fitted to
    fitted = texts * (1 + _copies(recipe)) if prunes or curves else 0
    return Task(max(fitted, rule.samples), rule.seq_len, prunes, texts if curves else 0)


def _copies(recipe: Recipe) -> int:
    """Rewritten copies per window; none where nothing is fitted."""
    rule = recipe.recovery
    if not RECOVERIES[rule.method].uses_tokens:
        return 0
    if rule.copies == "auto":
        samples = rule.samples or recipe.calibration.samples
        return min(max(round(ENOUGH_WINDOWS / samples) - 1, 0), 64)
    return rule.copies


def _autocast(loaded: LoadedModel, recipe: Recipe) -> torch.dtype | None:
    return autocast_dtype_of(recipe.recovery.compute, loaded.model)


def _windows(
    loaded: LoadedModel, recipe: Recipe, source: str, samples: int, seq_len: int
) -> Windows:
    return calibration_windows(
        source, loaded.model, loaded.tokenizer, samples, seq_len, recipe.seed
    )


def measure_model(
    loaded: LoadedModel,
    recipe: Recipe,
    *,
    gradients: bool = False,
    curves: bool = False,
    fit_windows: Callable[[], Windows] | None = None,
    solves: Stopwatch | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Measurement:
    """Measure on the recipe's calibration text, or read the same measurement from the cache.
    ``fit_windows`` gives :func:`recovery_windows` to a caller that needs them again, ``solves``
    counts the seconds in which widths were fitted.

    The gradient pass and the pass for expected losses are made when asked for, or when a criterion
    or the allocation of the recipe needs them.
    """
    callbacks = {"progress": progress, "should_cancel": should_cancel}
    with _memory_guard(loaded):
        windows = windows_for(loaded, recipe)
        about = (
            loaded.identity,
            loaded.revision,
            loaded.dtype,
            windows.fingerprint,
            *windows.ids.shape,
            recipe.seed,
        )

        def make() -> Measurement:
            return measure(
                loaded.model, windows, name=loaded.source, revision=loaded.revision, **callbacks
            )

        found = cached_measurement(measurement_key(*about), make)
        passed: dict = {}
        if gradients or needs_gradients(recipe):
            fewer = gradient_windows(loaded, recipe)
            passed["gradients"] = tuple(fewer.ids.shape)
            found = cached_measurement(
                measurement_key(*about, **passed),
                partial(with_gradients, found, loaded.model, fewer, **callbacks),
            )
        if curves or needs_loss_curves(recipe):
            samples = recipe.recovery.samples or len(windows.ids)
            passed["curves"] = (samples, _copies(recipe), PROBES)
            products = _autocast(loaded, recipe)
            if products:
                passed["products"] = str(products)
            found = cached_measurement(
                measurement_key(*about, **passed),
                # the expected losses come from what the recovery will be fitted to
                partial(
                    _with_loss_curves,
                    found,
                    loaded,
                    fit_windows or partial(recovery_windows, loaded, recipe, **callbacks),
                    {"products": products, "solves": solves, **callbacks},
                ),
            )
        return replace(found, model=loaded.source)


def _with_loss_curves(
    measurement: Measurement, loaded: LoadedModel, windows: Callable[[], Windows], how: dict
) -> Measurement:
    return with_loss_curves(measurement, loaded.model, windows(), **how)


def prune(
    loaded: LoadedModel,
    recipe: Recipe,
    *,
    plan: Plan | None = None,
    measurement: Measurement | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> PruneRun:
    """Measure (unless given), plan (unless given), cut and recover.

    Raises UsageError, SourceError, Unsupported, OutOfMemory and Cancelled; the dense model is
    never changed.
    """
    started = time.perf_counter()
    callbacks = {"progress": progress, "should_cancel": should_cancel}
    # writing the copies takes a forward pass: measuring and recovery share them
    fit_windows = cache(partial(recovery_windows, loaded, recipe, **callbacks))
    measurement = measurement or measure_model(loaded, recipe, fit_windows=fit_windows, **callbacks)
    plan = plan or make_plan(measurement, recipe)
    with _memory_guard(loaded):
        applied = apply(loaded.model, plan, recipe, fit_windows(), **callbacks)
    seconds = time.perf_counter() - started
    report = make_report(
        measurement=measurement,
        plan=applied.plan,
        widths=applied.widths,
        events=applied.events,
        recipe=recipe.model_dump(),
        device=loaded.device,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(loaded.model.device),
    )
    pruned = replace(loaded, model=applied.model, identity=_identity(loaded, applied))
    return PruneRun(
        loaded, pruned, recipe, applied.plan, applied.widths, applied.events, seconds, report
    )


def _identity(dense: LoadedModel, applied: Applied) -> str:
    """Tells the pruned weights from the dense ones, so that what was measured on the dense model
    is not taken for theirs when they are pruned again."""
    if applied.plan.is_empty:
        return dense.identity
    plan = sha256_of([applied.plan.to_json().encode()], 16)
    return f"{dense.identity}|pruned:{plan}:{fingerprint(applied.model)}"


class _memory_guard:
    """Turns running out of memory into one clear sentence."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.device = loaded.device

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> bool:
        # the CPU allocator raises a plain RuntimeError
        refused = isinstance(error, RuntimeError) and "not enough memory" in str(error)
        if refused or isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            raise OutOfMemory(
                f"The memory of {self.device} is exhausted; use fewer or shorter calibration "
                "samples, bfloat16, or another device."
            ) from None
        return False
