"""Compare, take it along: recipe, reports and figures; the model as a download or in a folder."""

from __future__ import annotations

import html
import re
from functools import partial
from pathlib import Path

import streamlit as st

from app.components.csv_export import csv_row, error_rows, head_rows, width_rows
from app.components.text import duration, size
from app.jobs import compare_tasks, tasks
from app.jobs.queue import Job
from app.report import html as report_html
from app.report import report
from app.server import downloads
from app.session import paths, state
from app.views.compare.evaluation import finished, latest, start, start_button
from pruning.checkpoint.forms import FORMS, GGUF_TYPES
from pruning.utils.errors import HeadroomError


def section(run: Job) -> None:
    """Everything of ``run`` that can be taken away."""
    st.subheader("Take it along", anchor=False)
    files, model = st.columns([3, 2], gap="large")
    with files:
        _files(run)
    with model:
        if tasks.has_models(run.result):
            form, stored = _form()
            _prepare(run, form, stored)
            _ready(run)
            _save(run, form, stored)
        else:
            st.caption("The weights of this run were let go; open its recipe to make them again.")
            _ready(run)


def _files(run: Job) -> None:
    """Recipe, report and CSV."""
    written = run.result.report
    found = {
        kind: (job.result, job.request)
        for kind in ("perplexity", "speed", "texts", "tokens")
        if (job := latest(kind, run)) is not None and job.status == "done"
    }
    model = state.model_name(run.request.model.source)
    st.caption("The report contains the comparisons made above.")
    with st.container(horizontal=True):
        for label, data, name, mime in (
            ("Recipe", run.request.to_yaml(), "recipe.yaml", "application/yaml"),
            (
                "Report, HTML",
                report_html.as_html(model, run.result, found),
                "report.html",
                "text/html",
            ),
            (
                "Report, Markdown",
                report.as_markdown(model, written, found),
                "report.md",
                "text/markdown",
            ),
            ("Report, JSON", report.as_json(written, found), "report.json", "application/json"),
        ):
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


def _form() -> tuple[str, str]:
    """The form, and how a single file stores its numbers."""
    forms = list(FORMS)
    form = st.radio(
        "The pruned model as",
        [entry.name for entry in forms],
        captions=[entry.summary for entry in forms],
        key="compare.form",
        format_func=lambda name: FORMS.entry(name).title,
        persist_state="session",
    )
    stored = GGUF_TYPES[1]
    if FORMS[form].single_file:
        stored = st.segmented_control(
            "Numbers",
            GGUF_TYPES,
            default=stored,
            required=True,
            key="compare.gguf_type",
            help="How the matrices are stored: 32, 16 or about 8 bits each.",
        )
    return form, stored


def file_name(source: str, form: str) -> str:
    """``gpt2-pruned-compact``: what a browser may be told, whatever the source was called."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).name.removesuffix(".gguf")).strip(".-")
    return f"{plain or 'model'}-pruned-{form}"


def _prepare(run: Job, form: str, stored: str) -> None:
    job = latest("pack", run)
    pressed = start_button("Prepare download", "compare.pack", job, ":material/archive:")
    if pressed:
        name = file_name(run.request.model.source, form)
        task = compare_tasks.packing(
            run.result,
            name,
            form,
            stored,
            _measured(run),
            downloads.download_store(),
            state.owner(),
        )
        start("pack", "Download", task, run)


def _ready(run: Job) -> None:
    """The link to what was prepared, or why there is none."""
    job = latest("pack", run)
    if job is None or not finished(job):
        return
    made, remarks = job.result
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
    for remark in remarks:
        st.caption(remark)
    st.caption(
        f"Kept for {duration(downloads.KEEP)} after it was last asked for, or until you prepare "
        "another one."
    )


def _save(run: Job, form: str, stored: str) -> None:
    where, button = st.columns([3, 1], vertical_alignment="bottom")
    default = f"out/{run.request.model.source.split('/')[-1]}-pruned"
    target = where.text_input(
        "Folder on the server",
        default,
        key="compare.folder",
        help="Inside: " + ", ".join(f"`{root}`" for root in paths.roots()),
    )
    job = latest("save", run)
    with button:
        ready = bool(target.strip())
        pressed = start_button("Save", "compare.save", job, ":material/save:", ready)
    if pressed:
        try:
            path = paths.allowed(target.strip())
        except HeadroomError as error:
            st.error(str(error))
        else:
            task = compare_tasks.saving(run.result, path, form, stored, _measured(run))
            start("save", "Save", task, run)
    if job is not None and finished(job):
        path, remarks = job.result
        st.success(f"Saved to {path}.")
        for remark in remarks:
            st.caption(remark)


def _measured(run: Job) -> compare_tasks.Pair | None:
    """Perplexities of this run, when they were measured on this page."""
    job = latest("perplexity", run)
    return job.result if job is not None and job.status == "done" else None
