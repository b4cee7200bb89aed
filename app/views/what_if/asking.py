"""The jobs behind the page: one for each thing that is switched off, and one for a whole block."""

from __future__ import annotations

import time
from collections.abc import Callable

import streamlit as st

from app.components.widgets import corpus_options
from app.jobs.ablation_tasks import Bench, Question, each_head, trying
from app.jobs.job import Job, Work
from app.session import paths, query_params, state, visitor_jobs
from pruning.artifacts.ablation import Ablation

TRY, EACH = "what_if", "each_head"
KEPT = 12
"""Answers of a visitor to come back to."""
PATIENCE = 1.5
"""Seconds that a page waits for an answer before it shows how far the work is."""
LOOK = 0.3
"""Seconds between looks at work that takes longer."""
TEXT = "what_if.text"
FIRST = Question()


def question() -> Question:
    """The widgets that say what is read."""
    query_params.follow(TEXT, FIRST.text)
    sentence, text, windows = st.columns([5, 2, 2], vertical_alignment="bottom", gap="medium")
    return Question(
        sentence=sentence.text_input(
            "Sentence",
            FIRST.sentence,
            max_chars=400,
            key="what_if.sentence",
            persist_state="session",
            help="The page shows which token each model expects after it.",
        ),
        text=text.selectbox(
            "Text for the loss",
            key=TEXT,
            persist_state="session",
            on_change=query_params.keep,
            args=(TEXT, FIRST.text),
            **corpus_options(texts_only=True, chosen=st.session_state.get(TEXT), first=FIRST.text),
        ),
        windows=windows.number_input(
            "Windows of 128 tokens",
            1,
            16,
            FIRST.windows,
            key="what_if.windows",
            persist_state="session",
            help="More give a steadier loss and take longer.",
        ),
    )


def is_ready() -> bool:
    """Whether nobody need be asked before the model answers: it is in memory, or it is the embedded
    one, which is there in seconds."""
    choice = state.measured_model()
    embedded = choice.source == state.demo_measurement().model
    return embedded or visitor_jobs.models().has(choice, state.device())


def tried(off: Ablation, asked: Question, *, now: bool) -> Job | None:
    """The job that answers for ``off``; queued ``now`` if there is none. An older one that is still
    at work is no longer wanted."""
    draft, measured = state.draft_recipe(), state.current_measurement()
    # what decides which channels go, where some do
    by = (draft.ffn.score, draft.seed, measured.corpus_fingerprint) if off.ffn else ()
    request = (state.measured_model(), state.device(), off, asked, by)
    for job in visitor_jobs.jobs(TRY):
        if job.active and job.request != request:
            visitor_jobs.manager().forget(job)
    return _job(
        TRY, "What if", request, lambda: trying(_bench(), off, asked, measured, draft), asked, now
    )


def each(block: int, asked: Question, *, now: bool) -> Job | None:
    """The job that switches every head of ``block`` off, one by one; queued ``now`` if none did."""
    seed, measured = state.draft_recipe().seed, state.current_measurement()
    request = (state.measured_model(), state.device(), block, asked, measured.corpus_fingerprint)
    title = f"Every head of block {block}"
    return _job(
        EACH, title, request, lambda: each_head(_bench(), block, asked, measured, seed), asked, now
    )


def _bench() -> Bench:
    models, readings = visitor_jobs.models(), visitor_jobs.readings()
    return Bench(models, readings, state.measured_model(), state.device())


def _job(
    kind: str, title: str, request: tuple, make: Callable[[], Work], asked: Question, now: bool
) -> Job | None:
    mine = visitor_jobs.jobs(kind)
    job = next((job for job in reversed(mine) if job.request == request), None)
    if not now or (job is not None and (job.active or job.status == "done")):
        return job
    for old in mine[:-KEPT]:
        visitor_jobs.manager().forget(old)

    def work() -> Work:
        paths.check_model(state.measured_model().source)
        paths.check_corpus(asked.text)
        return make()

    visitor_jobs.start(kind, title, work, then=lambda: None, request=request)
    job = visitor_jobs.latest(kind)
    return job if job is not None and job.request == request else None


def settled(job: Job) -> bool:
    """Whether ``job`` has ended, or ends within the time that a page can wait."""
    deadline = time.monotonic() + PATIENCE
    while job.active and time.monotonic() < deadline:
        time.sleep(0.02)
    return not job.active
