"""The whole stage: train a pruned model toward the dense one, and keep the better of the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pruning.artifacts.events import CancelCheck, ProgressCallback, ignore, never
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.tuning import TuningReport
from pruning.models.fingerprint import fingerprint
from pruning.models.loading.loaded import LoadedModel
from pruning.registries import TUNINGS
from pruning.surgery.cut import in_dtype, shared_copy
from pruning.tuning.training.divergence import divergences, mean_divergence
from pruning.tuning.training.loop import Diverged, Loop
from pruning.tuning.training.state import StateFile
from pruning.tuning.training.trainable import Trainable, set_parameter
from pruning.utils.digest import key_of, sha256_of
from pruning.utils.precision import autocast_dtype_of, autocast_in

_STATE_VERSION = 1
_PAUSE = 60.0
"""Seconds between two writings of the state."""


def tune(
    dense: LoadedModel,
    pruned: LoadedModel,
    recipe: Recipe,
    ids: Tensor,
    held_out: Tensor,
    *,
    pause: float = _PAUSE,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> tuple[LoadedModel, TuningReport]:
    """``pruned`` trained as ``recipe.tune`` says on windows ``ids`` [n, s], and what was done. It
    shares with ``pruned`` what was not trained, as that does with ``dense``; neither changes.

    Both models are run on each batch, and the dense one's logits are dropped with it. Training is
    in float32; the new weights have values that ``dense.saved_dtype`` holds exactly, and with these
    the divergence on windows ``held_out`` [m, s] (m may be 0) decides whether they are kept. A
    killed or cancelled training goes on where it was when the same is asked for again. Raises
    Cancelled.
    """
    rule = recipe.tune
    entry = TUNINGS.entry(rule.method)
    rate = entry.value.learning_rate if rule.learning_rate == "auto" else rule.learning_rate
    student = shared_copy(in_dtype(pruned.model, "float32")).requires_grad_(False)
    trainable = entry.value.prepare(student, pruned.adapter, rule, recipe.seed)
    file = StateFile(_key(dense, pruned, recipe, rate, ids), pause)
    loop = Loop(
        trainable,
        _loss(dense.model, student, recipe),
        ids,
        batch=rule.batch,
        epochs=rule.epochs,
        learning_rate=rate,
        seed=recipe.seed,
        file=file,
    )
    before = None
    if len(held_out):
        before = mean_divergence(dense.model, pruned.model, held_out, should_cancel)
    tuned = None
    try:
        loop.run(progress, should_cancel)
        tuned = _with_weights(pruned, trainable)
    except Diverged:
        pass
    after = None
    if tuned is not None and len(held_out):
        after = mean_divergence(dense.model, tuned, held_out, should_cancel)
    better = after is not None and (before is None or after < before)
    kept = tuned is not None and (better or not len(held_out))
    report = TuningReport(
        method=rule.method,
        title=entry.title,
        parameters=sum(value.numel() for value in trainable.parameters.values()),
        windows=len(ids),
        seq_len=ids.shape[1],
        epochs=rule.epochs,
        batch=rule.batch,
        learning_rate=rate,
        held_out=len(held_out),
        untuned=before,
        tuned=after,
        kept="tuned" if kept else "untuned",
        seconds=round(loop.position.seconds, 3),
        curve=tuple(loop.position.curve),
    )
    file.remove()
    if tuned is None or not kept:
        return pruned, report
    identity = f"{pruned.identity}|tuned:{fingerprint(tuned)}"
    return replace(pruned, model=tuned, identity=identity), report


def _loss(dense: nn.Module, student: nn.Module, recipe: Recipe) -> Any:
    """Mean divergence per token of ``student`` from ``dense`` on a few windows [b, s]."""
    dtype = autocast_dtype_of(recipe.recovery.compute, dense)

    def loss_of(windows: Tensor) -> Tensor:
        batch = {"input_ids": windows.to(dense.device), "use_cache": False}
        with autocast_in(dtype, dense.device):
            with torch.no_grad():
                wanted = dense(**batch).logits
            found = student(**batch).logits
        return divergences(wanted.flatten(0, 1), found.flatten(0, 1)).mean()

    return loss_of


def _with_weights(pruned: LoadedModel, trainable: Trainable) -> nn.Module | None:
    """A copy of the pruned model with the trained weights; None where the number format that they
    will be saved in cannot hold them."""
    model = shared_copy(pruned.model)
    saved = getattr(torch, pruned.saved_dtype)
    weights: Mapping[str, Tensor] = trainable.weights()
    for path, value in weights.items():
        stored = value.to(saved)
        if not stored.isfinite().all():
            return None
        like = model.get_parameter(path)
        set_parameter(model, path, nn.Parameter(stored.to(like), requires_grad=False))
    return model


def _key(dense: LoadedModel, pruned: LoadedModel, recipe: Recipe, rate: float, ids: Tensor) -> str:
    """Everything that a training's course depends on."""
    return key_of(
        [
            _STATE_VERSION,
            torch.__version__,
            dense.identity,
            dense.dtype,
            pruned.identity,
            dense.device,
            recipe.tune.model_dump(exclude={"keep_better"}),
            rate,
            recipe.recovery.compute,
            recipe.seed,
            sha256_of([ids.numpy().tobytes()]),
        ]
    )
