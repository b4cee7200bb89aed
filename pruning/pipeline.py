"""The whole way from a loaded model and a recipe to a pruned one."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

import torch

from pruning.apply import apply
from pruning.corpora import Windows, calibration_windows
from pruning.corpora.rewriting import rewritten
from pruning.errors import OutOfMemory
from pruning.evaluate.speed import peak_memory_bytes
from pruning.events import CancelCheck, ModuleEvent, ProgressCallback, ignore, never
from pruning.measure import cached_measurement, measure, measurement_key, with_gradients
from pruning.measurement import Measurement
from pruning.plan import Plan
from pruning.planning import make_plan, needs_gradients
from pruning.recipe import Recipe
from pruning.recovery import RECOVERIES
from pruning.report import Report, make_report
from pruning.shape import Widths
from pruning.sources.loaded import LoadedModel


@dataclass(frozen=True)
class PruneRun:
    """A finished run. ``pruned`` shares untouched parameters with ``dense``; ``plan`` is what
    was carried out, after re-scoring; ``seconds`` excludes loading the model."""

    dense: LoadedModel
    pruned: LoadedModel
    recipe: Recipe
    plan: Plan
    widths: tuple[Widths, ...]
    events: tuple[ModuleEvent, ...]
    seconds: float
    report: Report


def windows_for(loaded: LoadedModel, recipe: Recipe) -> Windows:
    """Calibration windows of the measurement; raises SourceError, UsageError."""
    calibration = recipe.calibration
    return _windows(loaded, recipe, calibration.source, calibration.samples, calibration.seq_len)


def gradient_windows(loaded: LoadedModel, recipe: Recipe) -> Windows:
    """Windows of the gradient pass, no longer than the model's positions."""
    rule = recipe.calibration
    seq_len = min(rule.gradient_seq_len, loaded.model.config.max_position_embeddings)
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
    if rule.copies == 0 or not RECOVERIES[rule.method].uses_tokens:
        return text
    copies = rewritten(
        loaded.model, text.ids, rule.copies, recipe.seed,
        progress=progress, should_cancel=should_cancel,
    )  # fmt: skip
    groups = copies.reshape(samples, rule.copies, -1)
    ids = torch.cat([text.ids[:, None], groups], dim=1).flatten(0, 1)
    return replace(text, ids=ids, family=1 + rule.copies)


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
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Measurement:
    """Measure on the recipe's calibration text, or read the same measurement from the cache.

    The gradient pass is made when ``gradients`` or a criterion of the recipe asks for it.
    """
    hear = {"progress": progress, "should_cancel": should_cancel}
    with _memory_guard(loaded):
        windows = windows_for(loaded, recipe)
        about = (
            loaded.identity, loaded.revision, loaded.dtype, windows.fingerprint,
            *windows.ids.shape, recipe.seed,
        )  # fmt: skip

        def make() -> Measurement:
            return measure(
                loaded.model, windows, name=loaded.source, revision=loaded.revision, **hear
            )

        measurement = cached_measurement(measurement_key(*about), make)
        if gradients or needs_gradients(recipe):
            fewer = gradient_windows(loaded, recipe)
            measurement = cached_measurement(
                measurement_key(*about, gradients=tuple(fewer.ids.shape)),
                partial(with_gradients, measurement, loaded.model, fewer, **hear),
            )
        return replace(measurement, model=loaded.source)


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
    measurement = measurement or measure_model(
        loaded, recipe, progress=progress, should_cancel=should_cancel
    )
    plan = plan or make_plan(measurement, recipe)
    with _memory_guard(loaded):
        windows = recovery_windows(loaded, recipe, progress=progress, should_cancel=should_cancel)
        applied = apply(
            loaded.model, plan, recipe, windows, progress=progress, should_cancel=should_cancel
        )
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
    pruned = replace(loaded, model=applied.model)
    return PruneRun(
        loaded, pruned, recipe, applied.plan, applied.widths, applied.events, seconds, report
    )


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
