"""The heads of a block switched off one by one, against what foretold it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from pruning.ablation.masks import BlockMask
from pruning.ablation.reading import REMEDY, Reading, frames_for, log_probabilities
from pruning.ablation.request import check_block, check_measured
from pruning.ablation.what_if import Compared, changed, compared, total_change
from pruning.artifacts.ablation import Change, LeaveOneOut, Predictor
from pruning.artifacts.events import CancelCheck, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.measurement import Measurement
from pruning.criteria import CRITERIA, unit_scores
from pruning.models.loading.loaded import LoadedModel
from pruning.planning.analysis import nearest, rank_correlation
from pruning.utils.memory import device_guard

NEAREST = "nearest"
NEAREST_TITLE = "Divergence from the nearest head (τ)"


@torch.no_grad()
def leave_one_out(
    loaded: LoadedModel,
    reading: Reading,
    block: int,
    measurement: Measurement | None = None,
    *,
    seed: int = 0,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> LeaveOneOut:
    """What each head of ``block`` alone changes on the text of ``reading``, and how well every
    criterion that ``measurement`` has the statistics for ranks that. ``seed`` is the recipe's.

    τ takes a head for whom another one stands in, so what is compared is the divergence from the
    nearest head: with that one left, the smaller it is the less should change. Raises UsageError,
    OutOfMemory and Cancelled.
    """
    started, shape = time.perf_counter(), loaded.adapter.model_shape(loaded.model)
    check_block(block, shape)
    if measurement is not None:
        check_measured(measurement, shape)
    masks = [{block: BlockMask((head,))} for head in range(shape.blocks[block].attention.units)]
    windows = len(reading.ids) - 1  # the sentence is not asked about
    with device_guard(loaded.device, REMEDY):
        frames = frames_for(loaded, reading.ids[:windows])
        callbacks: dict[str, Any] = {"progress": progress, "should_cancel": should_cancel}
        variants = changed(loaded, reading, frames, masks, windows=windows, **callbacks)
        sides: list[list[Compared]] = [[] for _ in variants]
        for place, ids in enumerate(reading.ids[:windows]):
            frame = frames[ids.shape[1]]
            dense = reading.dense(place, frame)
            for head, streams in enumerate(variants):
                stop_if(should_cancel)
                other = log_probabilities(frame, ids, streams[place])
                sides[head].append(compared(ids, dense, other))
        changes = tuple(map(total_change, sides))
    predictors = () if measurement is None else _predictors(measurement, block, changes, seed)
    seconds = round(time.perf_counter() - started, 3)
    return LeaveOneOut(block, changes, reading.protocol, predictors, seconds)


def _predictors(
    measurement: Measurement, block: int, changes: tuple[Change, ...], seed: int
) -> tuple[Predictor, ...]:
    shape, measured = measurement.shape.blocks[block].attention, measurement.blocks[block]
    statistics, divergence = measured.attention.statistics, measured.divergence
    foretold: dict[tuple[str, str], np.ndarray] = {}
    if shape.units > 1:
        apart = [nearest(divergence, head)[0][1] for head in range(shape.units)]
        foretold[NEAREST, NEAREST_TITLE] = np.array(apart)
    for entry in CRITERIA:
        if entry.value.gradients <= statistics.keys():
            scores = unit_scores(entry.name, statistics, shape, seed=seed, block=block)
            foretold[entry.name, entry.title] = scores
    real = np.array([change.kl for change in changes])
    return tuple(
        Predictor(name, title, tuple(values.tolist()), rank_correlation(values, real))
        for (name, title), values in foretold.items()
    )
