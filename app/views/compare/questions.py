"""What can be asked about a run, each as a job of its own: button, progress, newest answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.components.job_progress import outcome, watch
from app.components.widgets import corpus_options
from app.jobs import compare_tasks, tasks
from app.jobs.job import Job, Work
from app.session import paths, visitor_jobs


@dataclass(frozen=True)
class Question:
    """``kind`` and ``title`` of its jobs, ``label`` and ``icon`` of the button that asks."""

    kind: str
    title: str
    label: str
    icon: str


PERPLEXITY = Question("perplexity", "Perplexity", "Evaluate", ":material/speed:")
SPEED = Question("speed", "Speed", "Time both", ":material/timer:")
TOKENS = Question("tokens", "Tokens", "Read with both", ":material/format_color_text:")
TEXTS = Question("texts", "Text", "Generate", ":material/edit:")
ZERO_SHOT = Question("zero_shot", "Zero-shot tasks", "Score both", ":material/quiz:")
WRITTEN = Question("written", "Continuations", "Let both write on", ":material/edit_note:")
PACK = Question("pack", "Download", "Prepare download", ":material/archive:")
SAVE = Question("save", "Save", "Save", ":material/save:")

_OWN = {"perplexity": "perplexity", "speed": "speed", "tokens": "tokens", "texts": "texts"}
"""Kinds that a run answers at its end, and where its Comparison has the answer."""


def latest(question: Question, run: Job) -> Job | None:
    """The newest job that asks this about ``run``."""
    return (jobs(question, run) or [None])[-1]


def jobs(question: Question, run: Job) -> list[Job]:
    """All of them, oldest first."""
    return [job for job in visitor_jobs.jobs(question.kind) if job.request[0] == run.id]


def found(question: Question, run: Job) -> tuple[Any, tuple] | None:
    """The newest answer and what it was about (the run's id, then details); the run's own where
    nothing was asked since; None when there is none."""
    job = latest(question, run)
    if job is not None:
        return (job.result, job.request) if job.status == "done" else None
    own = run.result.comparison
    answer = getattr(own, _OWN[question.kind], None) if question.kind in _OWN else None
    return None if answer is None else (answer, (run.id, own.prompt))


def result(question: Question, run: Job) -> Any:
    """The newest answer; None when there is none."""
    answer = found(question, run)
    return None if answer is None else answer[0]


def ask(
    question: Question,
    run: Job,
    make: Callable[[], Work],
    *details: Any,
    ready: bool = True,
    place: Any = st,
    estimate: float | None = None,
) -> None:
    """The button; pressed, it queues ``make()`` with ``details`` kept in the job's request. What
    ``make`` refuses is said in its sentence. ``estimate``: seconds that it will take."""
    job = latest(question, run)
    busy = job is not None and job.active
    if place.button(
        question.label,
        key=f"compare.ask.{question.kind}",
        icon=question.icon,
        disabled=busy or not ready or not tasks.has_models(run.result),
    ):
        request = (run.id, *details)
        visitor_jobs.start(question.kind, question.title, make, request=request, estimate=estimate)


def queue(question: Question, run: Job, work: Work) -> None:
    """Queue work about ``run``."""
    visitor_jobs.submit(question.kind, question.title, work, request=(run.id,))


def answer(question: Question, run: Job) -> Any:
    """The newest answer; progress or the closing sentence, and None, when there is none."""
    job = latest(question, run)
    if job is not None:
        if job.active:
            watch(job)
        outcome(job)
    return result(question, run)


def perplexity_pairs(run: Job) -> dict[str, compare_tasks.Pair]:
    """Every perplexity of this run: the newest of each protocol, oldest first."""
    own = run.result.comparison
    pairs = [own.perplexity] if own is not None and own.perplexity is not None else []
    pairs += [job.result for job in jobs(PERPLEXITY, run) if job.status == "done"]
    by_protocol: dict[str, compare_tasks.Pair] = {}
    for pair in pairs:
        protocol = pair.after.protocol()
        by_protocol.pop(protocol, None)
        by_protocol[protocol] = pair
    return by_protocol


def choose_text() -> None:
    """The text that questions read, cut into windows."""
    text, length, windows = st.columns([2, 1, 1], vertical_alignment="bottom")
    chosen = st.session_state.get("compare.corpus")
    text.selectbox(
        "Text",
        key="compare.corpus",
        index=0,
        persist_state="session",
        **corpus_options(texts_only=True, chosen=chosen, first="sample"),
    )
    length.number_input(
        "Window, tokens", 2, 131072, 128, 32, key="compare.seq_len", persist_state="session"
    )
    windows.number_input(
        "Windows",
        1,
        100_000,
        16,
        8,
        key="compare.windows",
        persist_state="session",
        help="How many windows are read, from the first one; more are more reliable and take "
        "longer.",
    )


def text_choice() -> tuple[str, int, int]:
    """Corpus, tokens per window and windows as chosen."""
    chosen = (st.session_state.get(f"compare.{name}") for name in ("corpus", "seq_len", "windows"))
    corpus, seq_len, windows = chosen
    return corpus or "sample", int(seq_len or 128), int(windows or 16)


def text_in_words() -> str:
    """``sample, 16 windows of 128 tokens``."""
    source, seq_len, windows = text_choice()
    return f"{source}, {windows} windows of {seq_len} tokens"


def on_text(make: Callable[..., Work], run: Job) -> Work:
    """``make(run, source, seq_len, windows)`` on the chosen text; raises UsageError for a path
    outside the roots."""
    text = text_choice()
    paths.check_corpus(text[0])
    return make(run.result, *text)
