"""The whole way from a loaded model and a recipe to a pruned one."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from pruning.artifacts.events import (
    CancelCheck,
    Progress,
    ProgressCallback,
    RecoveryCheck,
    ignore,
    never,
)
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.report import make_report
from pruning.artifacts.shapes import ModelShape
from pruning.data import CORPORA, TokenCorpus
from pruning.evaluate.speed import peak_memory_bytes, reset_peak_memory
from pruning.measure.passes import (
    MeasuringPass,
    forward_pass,
    gradient_pass,
    loss_curve_pass,
    run_passes,
    shipped_pass,
)
from pruning.measure.shipped import shipped_measurement
from pruning.measure.windows import (
    curve_windows,
    gradient_windows,
    recovery_windows,
    unseen_windows,
    windows_for,
)
from pruning.models.execution.offload import devices_of
from pruning.models.fingerprint import fingerprint
from pruning.models.loading.loaded import LoadedModel
from pruning.models.loading.sizes import Task
from pruning.planning.checks import check_recipe
from pruning.planning.loss_curves import has_loss_curves
from pruning.planning.planner import make_plan, needs_gradients, needs_loss_curves
from pruning.recovery import copies_of, eliminates, held_out_windows
from pruning.surgery.apply import Applied, apply
from pruning.surgery.recovery_check import compare
from pruning.surgery.result import PruneRun
from pruning.tuning import TUNINGS, check_tuning, held_out_for_tuning
from pruning.tuning.training.stage import tune
from pruning.utils.digest import sha256_of
from pruning.utils.errors import UsageError
from pruning.utils.memory import device_guard
from pruning.utils.precision import autocast_dtype_of
from pruning.utils.stopwatch import Stopwatch


def memory_task(recipe: Recipe, *, prunes: bool = True, loss_curves: bool = False) -> Task:
    """What the memory for a prune, or only its measurement, must be estimated for; with
    ``loss_curves`` these are measured in any case."""
    rule = recipe.calibration
    texts = recipe.recovery.samples or rule.samples
    loss_curves = loss_curves or needs_loss_curves(recipe)
    fitted = texts * (1 + copies_of(recipe)) if prunes else 0
    probed = min(rule.curve_samples or texts, texts) if loss_curves else 0
    tuning = TUNINGS[recipe.tune.method] if prunes else TUNINGS["none"]
    return Task(
        samples=max(fitted, probed, rule.samples),
        seq_len=rule.seq_len,
        prunes=prunes,
        probed=probed,
        trained=tuning.share(recipe.tune),
        batch=recipe.tune.batch if tuning.prepare else 0,
    )


def measure_model(
    loaded: LoadedModel,
    recipe: Recipe,
    *,
    gradients: bool = False,
    loss_curves: bool = False,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Measurement:
    """Measure on the recipe's calibration text, or read the same measurement from the cache; that
    of the embedded model on the text it was shipped with is at hand.

    The gradient pass and the pass for loss curves are made when asked for, or when a criterion or
    the allocation of the recipe needs them.
    """
    with _memory_guard(loaded):
        passes = measuring_passes(
            loaded,
            recipe,
            gradients=gradients,
            loss_curves=loss_curves,
            progress=progress,
            should_cancel=should_cancel,
        )
        found = run_passes(passes, loaded.ranks)
        return replace(found, model=loaded.source, shape=loaded.shape)


def measuring_passes(
    loaded: LoadedModel,
    recipe: Recipe,
    *,
    gradients: bool = False,
    loss_curves: bool = False,
    solving: Stopwatch | None = None,
    **callbacks: Any,
) -> list[MeasuringPass]:
    """The passes that :func:`measure_model` makes. ``solving`` counts the seconds that go into
    fits; ``callbacks``: ``progress`` and ``should_cancel``."""
    windows = windows_for(loaded, recipe)
    known = shipped_measurement(loaded, windows, recipe.seed)
    if known is None:
        passes = [forward_pass(loaded, windows, recipe.seed, callbacks)]
    else:
        passes = [shipped_pass(known, loaded.identity)]
    if gradients or needs_gradients(recipe):
        passes.append(gradient_pass(loaded, gradient_windows(loaded, recipe), callbacks))
    texts = recipe.recovery.samples or recipe.calibration.samples
    has_curves = known is not None and has_loss_curves(known)
    if not has_curves and (loss_curves or needs_loss_curves(recipe)):
        passes.append(
            loss_curve_pass(
                loaded,
                partial(curve_windows, loaded, recipe),
                min(recipe.calibration.curve_samples or texts, texts),
                eliminates(recipe),
                autocast_dtype_of(recipe.recovery.compute, loaded.model),
                callbacks,
                solving,
            )
        )
    return passes


def prune(
    loaded: LoadedModel,
    recipe: Recipe,
    *,
    plan: Plan | None = None,
    measurement: Measurement | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> PruneRun:
    """Measure (unless given), plan (unless given), cut and recover; train only where
    ``recipe.tune`` says so. Where the recovered model turns out worse than the plain cut, that is
    what is given (``recovery.keep_better``).

    Raises UsageError, SourceError, Unsupported, OutOfMemory and Cancelled; the dense model is
    never changed.
    """
    started, devices = time.perf_counter(), devices_of(loaded.model)
    reset_peak_memory(devices)
    if plan is None:
        check_recipe(recipe, loaded.shape)
    check_tuning(recipe, loaded.model, loaded.adapter, loaded.placement)
    with _memory_guard(loaded):
        if measurement is None:
            passes = measuring_passes(
                loaded, recipe, progress=progress, should_cancel=should_cancel
            )
            measurement = replace(run_passes(passes, loaded.ranks), model=loaded.source)
        measurement = replace(measurement, shape=_to_be_saved(measurement.shape, loaded))
        made_from = partial(make_plan, measurement, recipe)
        plan = plan or loaded.ranks.from_first(made_from)
        plan = replace(plan, shape=_to_be_saved(plan.shape, loaded))
        callbacks: dict[str, Any] = {"progress": progress, "should_cancel": should_cancel}
        windows = recovery_windows(loaded, recipe, **callbacks)
        applied = apply(loaded.model, plan, recipe, windows, **callbacks)
        check = _checked(loaded, applied, plan, recipe, **callbacks)
        if check is not None and check.kept == "plain":
            unrepaired = recipe.changed(recovery={"method": "none", "rescore": False})
            applied = apply(loaded.model, plan, unrepaired, windows, **callbacks)
        pruned = replace(loaded, model=applied.model, identity=_identity(loaded, applied))
        tuning = None
        if TUNINGS[recipe.tune.method].prepare and not applied.plan.is_empty:
            held_out = unseen_windows(loaded, recipe, held_out_for_tuning(recipe))
            pruned, tuning = tune(loaded, pruned, recipe, windows.ids, held_out.ids, **callbacks)
    seconds = time.perf_counter() - started
    report = make_report(
        measurement=measurement,
        plan=applied.plan,
        widths=applied.widths,
        events=applied.events,
        recipe=recipe.model_dump(),
        device=loaded.device,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(*devices),
        recovery_check=check,
        tuning=tuning,
    )
    return PruneRun(
        loaded, pruned, recipe, applied.plan, applied.widths, applied.events, seconds, report, check
    )


def _to_be_saved(shape: ModelShape, loaded: LoadedModel) -> ModelShape:
    """``shape``, measured in the model's dtype, with bytes as they will be saved. Raises UsageError
    where it was measured to be saved otherwise: budgets in megabytes would not be met."""
    if shape.dtype not in (loaded.dtype, loaded.saved_dtype):
        raise UsageError(
            f"The measurement or plan is for weights in {shape.dtype}, the model's are saved in "
            f"{loaded.saved_dtype}; measure this one and plan again."
        )
    return replace(shape, dtype=loaded.saved_dtype)


def _checked(
    loaded: LoadedModel,
    applied: Applied,
    plan: Plan,
    recipe: Recipe,
    *,
    progress: ProgressCallback,
    should_cancel: CancelCheck,
) -> RecoveryCheck | None:
    """The recovered model beside the plain cut, on windows that no fit has seen; None where nothing
    was recovered, or nobody wants to know."""
    source, held_out = recipe.calibration.source, held_out_windows(recipe)
    if not (held_out and applied.events):
        return None
    windows = unseen_windows(loaded, recipe, held_out)
    corpus = CORPORA[source] if source in CORPORA else None
    found = loaded.ranks.from_first(
        partial(
            compare,
            loaded.model,
            applied.model,
            plan,
            windows.ids,
            language=not isinstance(corpus, TokenCorpus) or corpus.language,
            seed=recipe.seed,
            should_cancel=should_cancel,
        )
    )
    progress(Progress("check", 1, 1, found.sentence(), check=found))
    return found


def _identity(dense: LoadedModel, applied: Applied) -> str:
    """Tells the pruned weights from the dense ones, so that what was measured on the dense model
    is not taken for theirs when they are pruned again."""
    if applied.plan.is_empty:
        return dense.identity
    plan = sha256_of([applied.plan.to_json().encode()], 16)
    return f"{dense.identity}|pruned:{plan}:{fingerprint(applied.model)}"


def _memory_guard(loaded: LoadedModel) -> AbstractContextManager[None]:
    """Turns running out of memory into one clear sentence."""
    return device_guard(loaded.device, "use fewer or shorter calibration samples")
