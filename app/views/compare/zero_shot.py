"""Compare: zero-shot tasks, and how both models write on."""

from __future__ import annotations

import streamlit as st

from app.components.csv_export import csv_button
from app.components.text import duration, rounded
from app.jobs import compare_tasks
from app.jobs.job import Job, Work
from app.report import tables
from app.session import live_experiment, visitor_jobs
from app.views.compare import questions
from app.views.compare.questions import WRITTEN, ZERO_SHOT
from pruning.artifacts.zero_shot import TASK_NAMES, check_installed
from pruning.utils.errors import HeadroomError

LIMIT = 20
PROMPTS, NEW_TOKENS = 20, 32
"""What :func:`pruning.evaluate.compare_continuations` asks."""


def tasks(run: Job) -> None:
    """Accuracy of both models on the tasks of the field's tables."""
    st.subheader(
        "Zero-shot tasks",
        anchor=False,
        help="Multiple choice by EleutherAI's lm_eval: the answer with the largest likelihood "
        "counts. ± is one standard error; differences within it mean nothing.",
    )
    try:
        check_installed()
    except HeadroomError as error:
        st.info(str(error), icon=":material/extension:")
        return
    names, limit = _choice()
    seconds = _seconds(run, names, limit)
    folder = live_experiment.task_folder()
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):

        def make() -> Work:
            return compare_tasks.zero_shots(run.result, names, limit, folder)

        questions.ask(ZERO_SHOT, run, make, ready=bool(names), estimate=seconds)
        rows = "rows from the server's folder" if folder else "rows from the Hugging Face hub"
        about = f"About {duration(rounded(seconds))}; " if names and seconds is not None else ""
        st.caption(f"{about}{rows}." if about else f"{rows.capitalize()}.")
    pair = questions.answer(ZERO_SHOT, run)
    if pair is not None:
        _show(tables.zero_shot(pair), "zero-shot", run)


def _choice() -> tuple[tuple[str, ...], int | None]:
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    names = left.multiselect(
        "Tasks", TASK_NAMES, default=TASK_NAMES, key="compare.tasks", persist_state="session"
    )
    limit = right.number_input(
        "Items per task",
        1,
        100_000,
        LIMIT,
        10,
        key="compare.items",
        persist_state="session",
        placeholder="all",
        help="The first ones of each task; empty means all. With few items the standard errors are "
        "large.",
    )
    return tuple(names), None if limit is None else int(limit)


def _seconds(run: Job, names: tuple[str, ...], limit: int | None) -> float | None:
    if not visitor_jobs.tells_time():
        return None
    return visitor_jobs.estimator().of_tasks(names, limit, run.result.plan.shape)


def continuations(run: Job) -> None:
    """Repetition and agreement: what perplexity and multiple choice do not show."""
    st.markdown(
        "**Twenty prompts**",
        help="Perplexity and multiple choice stay good long after text does not. Both models "
        "continue the same twenty prompts; counted are 4-grams that a text repeats, and how often "
        "the pruned model would have chosen the dense one's next token.",
    )
    seconds = None
    if visitor_jobs.tells_time():
        size = PROMPTS, NEW_TOKENS, run.result.plan.shape
        seconds = visitor_jobs.estimator().of_continuations(*size)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        questions.ask(WRITTEN, run, lambda: compare_tasks.written(run.result), estimate=seconds)
        if seconds is not None:
            st.caption(f"About {duration(rounded(seconds))}.")
    found = questions.answer(WRITTEN, run)
    if found is not None:
        _show(tables.continuations(found), "continuations", run)


def _show(table: tables.Table, name: str, run: Job) -> None:
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    st.dataframe(rows, hide_index=True, width="stretch")
    st.caption(table.note)
    csv_button(lambda: rows, name, f"compare.{name}.{run.id}.csv")
