"""What worker threads do to switch units of the loaded model off, and say what that changes.

The engine (and with it torch) is imported only inside the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.jobs.job import Task
from app.jobs.model_store import ModelStore
from app.jobs.progress import TRY
from app.jobs.reading_store import ReadingStore
from app.jobs.tasks import on_model
from pruning.artifacts.ablation import SENTENCE, Ablation
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import ModelChoice, Recipe


@dataclass(frozen=True)
class Question:
    """What the models read: ``windows`` windows of ``seq_len`` tokens of ``text``, for the loss,
    and a ``sentence``, for the token after it."""

    text: str = "sample"
    windows: int = 1
    sentence: str = SENTENCE
    seq_len: int = 128


@dataclass(frozen=True)
class Bench:
    """Where a visitor's ``model`` is asked, on ``device``: with the ``models`` of this process and
    what they have read before (``readings``)."""

    models: ModelStore
    readings: ReadingStore
    model: ModelChoice
    device: str

    def reading(
        self,
        loaded: Any,
        question: Question,
        progress: ProgressCallback = ignore,
        should_cancel: CancelCheck = never,
    ) -> Any:
        """What the dense model made of ``question``."""
        from pruning.ablation import read

        progress(Progress(TRY.stage, 0, 1, "Reading with the dense model"))
        key = (loaded.identity, loaded.dtype, loaded.device, question)
        return self.readings.get(
            key,
            lambda: read(
                loaded,
                question.sentence,
                text=question.text,
                seq_len=min(question.seq_len, loaded.shape.max_positions),
                windows=question.windows,
                should_cancel=should_cancel,
            ),
        )


def trying(
    bench: Bench, off: Ablation, question: Question, measurement: Measurement, recipe: Recipe
) -> Task:
    """What ``off`` changes of the answer; the result is a WhatIf. Shares of an FFN are those that
    ``recipe`` would take by ``measurement``."""

    def use(loaded, progress, should_cancel):
        from pruning.ablation import masks_for, what_if

        shape = loaded.adapter.model_shape(loaded.model)
        masks = masks_for(off, shape, measurement, recipe)
        reading = bench.reading(loaded, question, progress, should_cancel)
        return what_if(loaded, reading, off, masks, progress=progress, should_cancel=should_cancel)

    return on_model(bench.models, bench.model, bench.device, use, TRY)


def each_head(
    bench: Bench, block: int, question: Question, measurement: Measurement, seed: int
) -> Task:
    """Every head of ``block`` switched off alone; the result is a LeaveOneOut."""

    def use(loaded, progress, should_cancel):
        from pruning.ablation import leave_one_out

        reading = bench.reading(loaded, question, progress, should_cancel)
        callbacks = {"progress": progress, "should_cancel": should_cancel}
        return leave_one_out(loaded, reading, block, measurement, seed=seed, **callbacks)

    return on_model(bench.models, bench.model, bench.device, use, TRY)
