"""What worker threads do to compare a dense and a pruned model, and to save the pruned one.

The engine (and with it torch) is imported only inside the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.jobs.job import Task
from app.jobs.progress import EVALUATE, GENERATE, PROMPTS, SAVE, TASKS
from app.server.downloads import DownloadStore
from pruning.artifacts.comparison import Pair
from pruning.artifacts.events import Progress, ProgressCallback, stop_if
from pruning.checkpoint.forms import FORMS, FormOptions

SHARD_BYTES = 5 * 10**9
"""Largest file of a saved folder (``pruning.checkpoint.forms.base.SHARD``)."""


def _both(
    run: Any, progress: ProgressCallback, side: Callable[[Any, ProgressCallback], Any]
) -> Pair:
    """``side(loaded, progress)`` of the dense model, then of the pruned one; each is half of the
    way."""

    def half(loaded: Any, name: str, part: int) -> Any:
        def report(step: Progress) -> None:
            done, message = part * step.total + step.done, f"{name}: {step.message}"
            progress(Progress(step.stage, done, 2 * step.total, message))

        return side(loaded, report)

    return Pair(half(run.dense, "dense", 0), half(run.pruned, "pruned", 1))


def perplexities(run: Any, source: str, seq_len: int, windows: int | None) -> Task:
    """Perplexity of both models on the same windows."""

    def work(progress, should_cancel):
        from pruning.evaluate import perplexity

        how = {"seq_len": seq_len, "windows": windows, "should_cancel": should_cancel}

        def side(loaded: Any, report: ProgressCallback) -> Any:
            return perplexity(loaded.model, loaded.tokenizer, source, progress=report, **how)

        return _both(run, progress, side)

    return Task(work, (EVALUATE,))


def speeds(run: Any) -> Task:
    """Tokens per second of both models, the best of a few turns each."""

    def work(progress, should_cancel):
        from pruning.evaluate import speeds as both

        return both(run.dense, run.pruned, progress=progress, should_cancel=should_cancel)

    return Task(work, (EVALUATE,))


@dataclass(frozen=True)
class LiveTexts:
    """Both texts so far, piece by piece: the worker appends, the page reads."""

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def texts(run: Any, prompt: str, max_new_tokens: int, live: LiveTexts | None = None) -> Task:
    """The same prompt continued by both models; ``live`` grows meanwhile."""
    live = live or LiveTexts()

    def work(progress, should_cancel):
        from pruning.evaluate.comparison import continuations

        def on_text(part: int, piece: str) -> None:
            (live.after if part else live.before).append(piece)

        return continuations(
            run.dense,
            run.pruned,
            prompt,
            max_new_tokens,
            on_text=on_text,
            progress=progress,
            should_cancel=should_cancel,
        )

    return Task(work, (GENERATE,))


def losses(run: Any, source: str, seq_len: int, windows: int) -> Task:
    """Losses of both models token by token; the result is a TokenLosses."""

    def work(progress, should_cancel):
        from pruning.evaluate import read_with_both

        _, found = read_with_both(
            run.dense.model,
            run.pruned.model,
            run.dense.tokenizer,
            source,
            seq_len=seq_len,
            windows=windows,
            progress=progress,
            should_cancel=should_cancel,
        )
        return found

    return Task(work, (EVALUATE,))


def zero_shots(run: Any, names: Sequence[str], limit: int | None, folder: str | None) -> Task:
    """Accuracy of both models on the first ``limit`` items (None: all) of each task, whose rows are
    in ``folder`` (None: on the hub)."""

    def work(progress, should_cancel):
        from pruning.evaluate import task_sources, zero_shot

        progress(Progress("tasks", 0, 2000, "reading the tasks"))
        sources = task_sources(names, None if folder is None else Path(folder))

        def side(loaded: Any, report: ProgressCallback) -> Any:
            return zero_shot(
                loaded, sources, limit=limit, progress=report, should_cancel=should_cancel
            )

        return _both(run, progress, side)

    return Task(work, (TASKS,))


def written(run: Any) -> Task:
    """How the pruned model writes on, beside the dense one; the result is a Continuations."""

    def work(progress, should_cancel):
        from pruning.evaluate import compare_continuations

        return compare_continuations(
            run.dense.model,
            run.pruned.model,
            run.dense.tokenizer,
            progress=progress,
            should_cancel=should_cancel,
        )

    return Task(work, (PROMPTS,))


def saving(run: Any, out: Path, form: str, options: FormOptions, scores: Pair | None) -> Task:
    """Write the pruned model as ``form``; ``scores`` are perplexities for the card, if any were
    measured. The result is the path and remarks for the user."""

    def work(progress, should_cancel):
        from pruning.checkpoint.saving import check_target

        check_target(out, form)
        progress(Progress("save", 0, 1, "Writing the weights"))
        return out, _write(run, out, form, options, scores)

    return Task(work, (SAVE,))


def packing(
    run: Any,
    name: str,
    form: str,
    options: FormOptions,
    scores: Pair | None,
    download_store: DownloadStore,
    owner: str,
) -> Task:
    """The same as one file ``name`` for ``owner`` to download: a zip of the folder, or the single
    file of a form that has one. The result is the Download and the remarks."""

    def work(progress, should_cancel):
        from pruning.checkpoint.zip import move_into_zip

        single = FORMS[form].single_file
        before = run.report.before
        # no form writes more; a single file's number format is its own, of 4 bytes at most
        weights = 4 * before.parameters if single else before.bytes
        with download_store.room(
            weights if single else weights + min(weights, SHARD_BYTES)
        ) as place:
            progress(Progress("save", 0, 1, "Writing the weights"))
            out = place / f"{name}{single or ''}"
            remarks = _write(run, out, form, options, scores)
            stop_if(should_cancel)
            if not single:
                out = move_into_zip(
                    out, place / f"{name}.zip", progress=progress, should_cancel=should_cancel
                )
            return download_store.offer(out, owner), remarks

    return Task(work, (SAVE,))


def _write(
    run: Any, out: Path, form: str, options: FormOptions, scores: Pair | None
) -> tuple[str, ...]:
    from pruning.checkpoint import Evaluation, parts_of, write

    evaluation = None
    if scores is not None:
        after = scores.after
        evaluation = Evaluation(scores.before.perplexity, after.perplexity, after.protocol())
    return write(parts_of(run, evaluation), out, form, options)
