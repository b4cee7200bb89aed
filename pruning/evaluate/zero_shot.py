"""Accuracy on zero-shot tasks by EleutherAI's lm_eval, on a model in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.artifacts.report import versions
from pruning.artifacts.zero_shot import Metric, TaskScore, ZeroShot
from pruning.evaluate.task_data import TaskSource, lm_eval_version
from pruning.models.loading.loaded import LoadedModel
from pruning.utils.errors import SourceError, UsageError, described

BATCH_SIZE = 8

SAMPLED = 50
"""Items of a task that tell how long its items are."""


def check_tasks(sources: Sequence[TaskSource], limit: int | None = None) -> list[Any]:
    """lm_eval's tasks with their rows in memory; called before weights are read, so that what
    cannot be had is refused first. Raises UsageError for a ``limit`` below 1 and SourceError, also
    without a network."""
    if limit is not None and limit < 1:
        raise UsageError(f"{limit} items leave nothing to evaluate; choose a limit of at least 1.")
    return [_task(source) for source in sources]


@torch.inference_mode()
def zero_shot(
    loaded: LoadedModel,
    sources: Sequence[TaskSource],
    *,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> ZeroShot:
    """Score ``loaded`` on ``sources`` (:func:`pruning.evaluate.task_data.task_sources`), each task
    on its first ``limit`` items (None: all).

    Every answer is scored by its log-likelihood behind the prompt, in the model's dtype; each task
    is run on its own, so that a figure does not depend on which others were asked for.
    Raises UsageError, SourceError and Cancelled.
    """
    from lm_eval import evaluate

    from pruning.evaluate.harness import HarnessModel, keep_quiet

    if loaded.tokenizer is None:
        raise SourceError(
            "The model has no tokenizer, so no task can be read; put the tokenizer's files into "
            "the model's folder."
        )
    pairs = list(zip(sources, check_tasks(sources, limit), strict=True))
    keep_quiet()
    started, scores = time.perf_counter(), []
    work = [_work(source.name, task, limit, loaded.tokenizer) for source, task in pairs]
    counter = _Counter(progress, work)
    model = HarnessModel(
        loaded.model, loaded.tokenizer, batch_size, counter.answered, should_cancel
    )
    for place, (source, task) in enumerate(pairs):
        stop_if(should_cancel)
        counter.begin(place)
        found = evaluate(
            lm=model, task_dict={"tasks": {source.name: task}}, limit=limit, log_samples=False
        )
        scores.append(_score(source, found))
    counter.end()
    return ZeroShot(
        model=loaded.source,
        dtype=loaded.dtype,
        device=loaded.device,
        limit=limit,
        batch_size=batch_size,
        seconds=round(time.perf_counter() - started, 3),
        versions={**versions(), "lm_eval": lm_eval_version()},
        scores=tuple(scores),
    )


def _task(source: TaskSource) -> Any:
    """lm_eval's task with its rows in memory; raises SourceError where they cannot be had."""
    from lm_eval.tasks import TaskManager

    from pruning.evaluate.harness import keep_quiet

    keep_quiet()
    with TemporaryDirectory(prefix="headroom-") as folder:
        (Path(folder) / f"{source.name}.yaml").write_text(source.yaml, encoding="utf-8")
        # lm_eval's own thousands of definitions take seconds to list; ours include those they need
        manager = TaskManager(include_path=folder, include_defaults=False)
        try:
            task = manager.load([source.name])["tasks"][source.name]
        except Exception as error:  # datasets raises many kinds; all mean: not to be had now
            advice = "repair the file"
            if source.data == "hub":
                advice = "check the network, or name a folder of JSONL files (--task-data)"
            raise SourceError(
                f"The rows of {source.name} could not be read ({described(error, 100)}); {advice}."
            ) from None
    task.set_config("num_fewshot", 0)
    return task


@dataclass(frozen=True)
class _Work:
    """What a task asks for, about: ``answers``, their ``characters`` with the prompts, and how many
    of those are ``read``, as answers of one token to the same prompt are read at once."""

    name: str
    answers: int
    characters: float
    read: float


def _work(name: str, task: Any, limit: int | None, tokenizer: Any) -> _Work:
    items = len(task.eval_docs) if limit is None else min(limit, len(task.eval_docs))
    some = [task.eval_docs[place] for place in range(0, items, max(1, items // SAMPLED))]
    answers = sum(len(task.doc_to_choice(item)) for item in some) * items / len(some)
    characters = sum(_characters(task, item) for item in some) * items / len(some)
    endings = [tokenizer(f" {choice}").input_ids for choice in task.doc_to_choice(some[0])]
    shared = not task.multiple_input and all(len(ids) == 1 for ids in endings)
    return _Work(
        name, round(answers), characters, characters / len(endings) if shared else characters
    )


def _characters(task: Any, item: Any) -> int:
    """Characters of all prompts with their answers that one item asks for."""
    choices = [str(choice) for choice in task.doc_to_choice(item)]
    rest = task.doc_to_target(item) if task.multiple_input else task.doc_to_text(item)
    return sum(map(len, choices)) + len(choices) * (1 + len(str(rest)))


def _score(source: TaskSource, found: Any) -> TaskScore:
    values, counts = found["results"][source.name], found["n-samples"][source.name]
    metric: Metric = "acc_norm" if "acc_norm,none" in values else "acc"
    data, config = source.data, found["configs"][source.name]
    if data == "hub":
        parts = (config["dataset_path"], config.get("dataset_name"))
        data = f"huggingface.co/datasets/{'/'.join(part for part in parts if part)}"
    return TaskScore(
        task=source.name,
        metric=metric,
        accuracy=float(values[f"{metric},none"]),
        stderr=_error(values[f"{metric}_stderr,none"]),
        plain_accuracy=float(values["acc,none"]),
        plain_stderr=_error(values["acc_stderr,none"]),
        items=counts["effective"],
        available=counts["original"],
        version=str(found["versions"][source.name]),
        data=data,
    )


def _error(value: Any) -> float | None:
    """lm_eval gives a text where there is no standard error."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


class _Counter:
    """Turns answers into progress, in thousandths of the text that all tasks read: what has been
    read so far says how long the rest will take."""

    def __init__(self, progress: ProgressCallback, work: Sequence[_Work]) -> None:
        self._progress, self._work = progress, work
        self._all = sum(task.read for task in work)
        self._task, self._before, self._seen, self._characters = work[0], 0.0, 0, 0

    def begin(self, place: int) -> None:
        self._before = sum(task.read for task in self._work[:place])
        self._task, self._seen, self._characters = self._work[place], 0, 0

    def answered(self, characters: int) -> None:
        """An answer was scored that has so many characters with its prompt."""
        self._seen, self._characters = self._seen + 1, self._characters + characters
        task = self._task
        share = min(1.0, self._characters / task.characters)
        done = int(999 * (self._before + share * task.read) / self._all)
        message = f"{task.name}, {self._seen} of {task.answers} answers"
        self._progress(Progress("tasks", done, 1000, message))

    def end(self) -> None:
        self._progress(Progress("tasks", 1000, 1000, "done"))
