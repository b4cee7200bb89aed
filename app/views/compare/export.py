"""Compare, export: recipe, reports and figures; the model as a download or in a folder."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from app.charts.plan_map import head_rows, width_rows
from app.charts.recovery import error_rows
from app.components.csv_export import csv_row
from app.components.text import duration, size
from app.jobs import compare_tasks, tasks
from app.jobs.job import Job
from app.report import report
from app.server import downloads
from app.session import paths, recorded, state
from app.views.compare import questions
from app.views.compare.questions import (
    PACK,
    PERPLEXITY,
    SAVE,
    SPEED,
    TEXTS,
    TOKENS,
    WRITTEN,
    ZERO_SHOT,
)
from pruning.checkpoint.forms import FORMS, GGUF_TYPES, FormOptions


def section(run: Job) -> None:
    """Everything of ``run`` that can be taken away."""
    st.subheader("Export", anchor=False)
    files, model = st.columns([3, 2], gap="large")
    with files:
        _files(run)
    with model:
        if tasks.has_models(run.result):
            form, options = _form()
            _prepare(run, form, options)
            _download(run)
            _save(run, form, options)
        else:
            st.caption(
                "A recorded run has no weights; run it here to get them."
                if recorded.is_recorded(run)
                else "Weights unloaded; open the recipe of this run to make them again."
            )
            _download(run)


def _files(run: Job) -> None:
    """Recipe, report and CSV."""
    answers = {
        question.kind: answer
        for question in (PERPLEXITY, SPEED, TEXTS, TOKENS, ZERO_SHOT, WRITTEN)
        if (answer := questions.found(question, run)) is not None
    }
    model = state.model_name(run.request.model.source)
    about = model, tasks.without_models(run.result), answers
    st.caption("The report contains the comparisons made above.")
    files = (
        ("Recipe", run.request.to_yaml(), "recipe.yaml", "application/yaml"),
        ("Report, HTML", partial(report.as_html, *about), "report.html", "text/html"),
        ("Report, Markdown", partial(report.as_markdown, *about), "report.md", "text/markdown"),
        ("Report, JSON", partial(report.as_json, *about), "report.json", "application/json"),
    )
    with st.container(horizontal=True):
        for label, data, name, mime in files:
            st.download_button(
                label,
                data,
                name,
                mime,
                icon=":material/download:",
                on_click="ignore",
                key=f"compare.{name}",
            )
    plan = run.result.plan
    csv_row(
        (partial(width_rows, plan), "widths", "compare.widths.csv"),
        (partial(head_rows, plan), "heads", "compare.heads.csv"),
        (partial(error_rows, run.result.events), "errors", "compare.errors.csv"),
    )


def _form() -> tuple[str, FormOptions]:
    """The form, the quantization of a single file, and what is written beside the model."""
    forms = list(FORMS)
    form = st.radio(
        "The pruned model as",
        [entry.name for entry in forms],
        captions=[entry.summary for entry in forms],
        key="compare.form",
        format_func=lambda name: FORMS.entry(name).title,
        persist_state="session",
    )
    gguf_type = GGUF_TYPES[1]
    if FORMS[form].single_file:
        gguf_type = st.segmented_control(
            "Quantization",
            GGUF_TYPES,
            default=gguf_type,
            required=True,
            key="compare.gguf_type",
            help="How the matrices are stored: 32, 16 or about 8 bits for each weight.",
        )
    handoff = not FORMS[form].untrainable and st.toggle(
        "With a training script",
        key="compare.handoff",
        persist_state="session",
        help="A script and its settings for those who train the model further elsewhere, with TRL "
        "and PEFT.",
    )
    return form, FormOptions(gguf_type=gguf_type, handoff=handoff)


def file_name(source: str, form: str) -> str:
    """``gpt2-pruned-compact``: a name that is safe to send to a browser, whatever the source was
    called."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).name.removesuffix(".gguf")).strip(".-")
    return f"{plain or 'model'}-pruned-{form}"


def _prepare(run: Job, form: str, options: FormOptions) -> None:
    name = file_name(run.request.model.source, form)
    scores = questions.result(PERPLEXITY, run)
    store, owner = downloads.download_store(), state.owner()
    questions.ask(
        PACK,
        run,
        lambda: compare_tasks.packing(run.result, name, form, options, scores, store, owner),
    )


def _download(run: Job) -> None:
    """The link to what was prepared, or why there is none."""
    answer = questions.answer(PACK, run)
    if answer is None:
        return
    made, remarks = answer
    if downloads.download_store().find(made.id) is None:
        st.caption("The download that was prepared has ended.")
        return
    # a new tab: a download leaves this page as it is, and so does word that it has ended
    st.html(
        f'<a href="{downloads.ADDRESS}/{made.id}" target="_blank" rel="noopener" style="'
        "display:inline-block;padding:.5rem 1rem;border:1px solid currentColor;"
        'border-radius:.5rem;color:inherit;text-decoration:none">'
        f"↓ Download {html.escape(made.path.name)} ({size(made.size)})</a>"
    )
    _remarks(remarks)
    st.caption(
        f"Kept for {duration(downloads.download_store().keep)} after it was last asked for, or "
        "until you prepare another one."
    )


def _save(run: Job, form: str, options: FormOptions) -> None:
    where, button = st.columns([3, 1], vertical_alignment="bottom")
    target = where.text_input(
        "Folder on the server",
        f"out/{run.request.model.source.split('/')[-1]}-pruned",
        key="compare.folder",
        help=paths.inside_roots(),
    ).strip()
    scores = questions.result(PERPLEXITY, run)
    questions.ask(
        SAVE,
        run,
        lambda: compare_tasks.saving(run.result, paths.check_target(target), form, options, scores),
        ready=bool(target),
        place=button,
    )
    answer = questions.answer(SAVE, run)
    if answer is not None:
        st.success(f"Saved to {answer[0]}.")
        _remarks(answer[1])


def _remarks(remarks: Sequence[str]) -> None:
    for remark in remarks:
        st.caption(remark)
