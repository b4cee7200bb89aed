"""What worker threads do to compare a dense and a pruned model, and to save the pruned one.

The engine (and with it torch) is imported only inside the work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.jobs.job import Work
from app.server.downloads import DownloadStore
from pruning.artifacts.events import Progress, stop_if
from pruning.checkpoint.forms import FORMS

SHARD_BYTES = 5 * 10**9
"""Largest file of a saved folder (``pruning.checkpoint.forms.base.SHARD``)."""


@dataclass(frozen=True)
class Pair:
    """The same question put to the dense and to the pruned model."""

    before: Any
    after: Any


def perplexities(run: Any, source: str, seq_len: int, windows: int | None) -> Work:
    """Perplexity of both models on the same windows, dense first."""

    def work(progress, should_cancel):
        from pruning.evaluate import perplexity

        def side(loaded: Any, name: str, part: int) -> Any:
            def told(step: Progress) -> None:
                done = part * step.total + step.done
                progress(Progress("evaluate", done, 2 * step.total, f"{name}: {step.message}"))

            return perplexity(
                loaded.model,
                loaded.tokenizer,
                source,
                seq_len=seq_len,
                windows=windows,
                progress=told,
                should_cancel=should_cancel,
            )

        return Pair(side(run.dense, "Dense", 0), side(run.pruned, "Pruned", 1))

    return work


def speeds(run: Any) -> Work:
    """Tokens per second of both models, the best of three turns each."""

    def work(progress, should_cancel):
        from pruning.evaluate import Speed, tokens_per_second

        # by turns: the first run is cold, and other work on the machine comes and goes
        turns = (run.dense, run.pruned) * 3
        found = []
        for place, loaded in enumerate(turns):
            stop_if(should_cancel)
            name = "pruned" if place % 2 else "dense"
            progress(Progress("evaluate", place, len(turns), f"timing the {name} model"))
            found.append(tokens_per_second(loaded.model, repeats=1))
        sides = (found[0::2], found[1::2])
        best = [Speed(max(s.prefill for s in side), max(s.decode for s in side)) for side in sides]
        return Pair(*best)

    return work


@dataclass(frozen=True)
class Writing:
    """The text so far, piece by piece: workers append, pages read."""

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def texts(run: Any, prompt: str, max_new_tokens: int, writing: Writing | None = None) -> Work:
    """The same prompt continued by both models, told to ``writing`` while it comes."""
    writing = writing or Writing()

    def work(progress, should_cancel):
        from pruning.evaluate import generate

        def side(loaded: Any, name: str, part: int, pieces: list[str]) -> Any:
            def told(piece: str) -> None:
                pieces.append(piece)
                progress(Progress("generate", part, 2, f"The {name} model writes"))

            progress(Progress("generate", part, 2, f"The {name} model reads the prompt"))
            return generate(
                loaded.model,
                loaded.tokenizer,
                prompt,
                max_new_tokens=max_new_tokens,
                on_text=told,
                should_cancel=should_cancel,
            )

        before = side(run.dense, "dense", 0, writing.before)
        return Pair(before, side(run.pruned, "pruned", 1, writing.after))

    return work


def losses(run: Any, source: str, seq_len: int, windows: int) -> Work:
    """Losses of both models token by token; the result is a TokenLosses."""

    def work(progress, should_cancel):
        from pruning.evaluate import token_losses

        return token_losses(
            run.dense.model,
            run.pruned.model,
            run.dense.tokenizer,
            source,
            seq_len=seq_len,
            windows=windows,
            progress=progress,
            should_cancel=should_cancel,
        )

    return work


def saving(run: Any, out: Path, form: str, gguf_type: str, found: Pair | None) -> Work:
    """Write the pruned model as ``form``; ``found`` are perplexities for the card, if any were
    measured. The result is the path and remarks for the user."""

    def work(progress, should_cancel):
        from pruning.checkpoint.saving import check_target

        check_target(out, form)
        progress(Progress("save", 0, 1, "Writing the weights"))
        return out, _write(run, out, form, gguf_type, found)

    return work


def packing(
    run: Any,
    name: str,
    form: str,
    gguf_type: str,
    found: Pair | None,
    download_store: DownloadStore,
    owner: str,
) -> Work:
    """The same as one file ``name`` for ``owner`` to download: a zip of the folder, or the single
    file of a form that has one. The result is the Download and the remarks."""

    def work(progress, should_cancel):
        from pruning.checkpoint.zip import move_into_zip

        single = FORMS[form].single_file
        weights = run.report.before.bytes  # no form writes more
        with download_store.room(
            weights if single else weights + min(weights, SHARD_BYTES)
        ) as place:
            progress(Progress("save", 0, 1, "Writing the weights"))
            out = place / f"{name}{single or ''}"
            remarks = _write(run, out, form, gguf_type, found)
            stop_if(should_cancel)
            if not single:
                out = move_into_zip(
                    out, place / f"{name}.zip", progress=progress, should_cancel=should_cancel
                )
            return download_store.offer(out, owner), remarks

    return work


def _write(run: Any, out: Path, form: str, gguf_type: str, found: Pair | None) -> tuple[str, ...]:
    from pruning.checkpoint import Evaluation, FormOptions, parts_of, write

    evaluation = None
    if found is not None:
        after = found.after
        evaluation = Evaluation(found.before.perplexity, after.perplexity, after.protocol())
    return write(parts_of(run, evaluation), out, form, FormOptions(gguf_type=gguf_type))
