"""The windows that a recipe asks for: to measure on, to fit to, to check on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from pruning.artifacts.events import CancelCheck, ProgressCallback, ignore, never
from pruning.artifacts.recipe import Recipe
from pruning.data import Windows, calibration_windows
from pruning.data.augment import resampled
from pruning.models.loading.loaded import LoadedModel
from pruning.recovery import copies_of
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
    followed by ``recovery.copies`` augmentations, in which half of the tokens are resampled from
    the model. Raises SourceError, UsageError and Cancelled."""
    rule = recipe.recovery
    samples = rule.samples or recipe.calibration.samples
    seq_len = recipe.calibration.seq_len
    text = _windows(loaded, recipe, recipe.calibration.source, samples, seq_len)
    copies = copies_of(recipe)
    if copies == 0:
        return text
    augmentations = loaded.ranks.from_first(
        partial(
            resampled,
            loaded.model,
            text.ids,
            copies,
            recipe.seed,
            autocast_dtype=autocast_dtype_of(recipe.recovery.compute, loaded.model),
            progress=progress,
            should_cancel=should_cancel,
        )
    )
    groups = torch.cat([text.ids[:, None], augmentations.reshape(samples, copies, -1)], dim=1)
    return replace(text, ids=groups.flatten(0, 1), group=1 + copies)


def curve_windows(loaded: LoadedModel, recipe: Recipe) -> Windows:
    """Windows of the loss curves: the recovery's text without augmentations, or the first
    ``calibration.curve_samples`` of it. Raises SourceError, UsageError."""
    rule = recipe.calibration
    samples = recipe.recovery.samples or rule.samples
    text = _windows(loaded, recipe, rule.source, samples, rule.seq_len)
    return replace(text, ids=text.ids[: rule.curve_samples])


def unseen_windows(loaded: LoadedModel, recipe: Recipe, count: int) -> Windows:
    """``count`` windows of the calibration text that nothing was fitted to; no rows where it is
    0."""
    rule = recipe.calibration
    samples = max(rule.samples, recipe.recovery.samples or 0)
    windows = _windows(loaded, recipe, rule.source, samples, rule.seq_len, held_out=max(1, count))
    return replace(windows, ids=windows.ids[:count])


def _windows(
    loaded: LoadedModel, recipe: Recipe, source: str, samples: int, seq_len: int, held_out: int = 0
) -> Windows:
    rule, ranks = recipe.calibration, loaded.ranks
    made = ranks.from_first(
        lambda: calibration_windows(
            source,
            loaded.model,
            loaded.tokenizer,
            samples,
            seq_len,
            recipe.seed,
            bos=rule.bos,
            text_field=rule.text_field,
            held_out=held_out,
        )
    )
    return replace(made, ranks=ranks)
