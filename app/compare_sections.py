"""Parts of Compare that need work by the models, and the downloads."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import paths, report, state, tasks, work
from app.jobs import Job, Work
from app.widgets import corpus_options, outcome, watch
from pruning.checkpoint.forms import FORMS, GGUF_TYPES
from pruning.errors import HeadroomError

PROMPT = "The water cycle describes how water moves"


def perplexity(run: Job) -> None:
    """Both perplexities on a text of choice, with the protocol beside them."""
    st.subheader(
        "Perplexity", anchor=False,
        help="The exponential of the mean negative log-likelihood per token; lower is better, "
        "1 would be perfect foresight.",
    )  # fmt: skip
    text, length, windows = st.columns([2, 1, 1], vertical_alignment="bottom")
    source = text.selectbox(
        "Text", key="compare.corpus", index=0, persist_state="session",
        **_evaluation_corpora(),
    )  # fmt: skip
    seq_len = length.number_input(
        "Window, tokens", 2, 131072, 128, 32, key="compare.seq_len", persist_state="session"
    )
    limit = windows.number_input(
        "Windows", 1, 100_000, 16, 8, key="compare.windows", persist_state="session",
        help="The first so many windows of the text; more are more reliable and take longer.",
    )  # fmt: skip
    job = _latest("perplexity", run)
    if _start_button("Evaluate", "compare.evaluate", job, ":material/speed:"):
        _start_on_text(run, source, int(seq_len), int(limit))
    if job is None or not _finished(job):
        return
    before, after = job.result.before, job.result.after
    dense, pruned, ratio = st.columns(3)
    dense.metric("Dense", f"{before.perplexity:.2f}", border=True)
    pruned.metric("Pruned", f"{after.perplexity:.2f}", border=True)
    ratio.metric("Pruned ÷ dense", f"{after.perplexity / before.perplexity:.3f} ×", border=True)
    st.caption(after.protocol())


def _evaluation_corpora() -> dict[str, Any]:
    options = corpus_options(texts_only=True, chosen=st.session_state.get("compare.corpus"))
    names = options["options"]
    options["options"] = ["sample", *(name for name in names if name != "sample")]
    return options


def _start_on_text(run: Job, source: str, seq_len: int, windows: int) -> None:
    try:
        paths.check_corpus(source)
    except HeadroomError as error:
        st.error(str(error))
        return
    task = tasks.perplexities(run.result, source, seq_len, windows)
    _start("perplexity", "Perplexity", task, run)


def speed(run: Job) -> None:
    """Tokens per second of both."""
    st.subheader(
        "Speed", anchor=False,
        help="On the server's device, one text at a time. Other work on the machine slows it "
        "down, so small differences mean little.",
    )  # fmt: skip
    st.caption("Reading a prompt of 128 tokens, and writing 32 tokens one by one.")
    job = _latest("speed", run)
    if _start_button("Time both", "compare.time", job, ":material/timer:"):
        _start("speed", "Speed", tasks.speeds(run.result), run)
    if job is None or not _finished(job):
        return
    before, after = job.result.before, job.result.after
    for column, label, old, new in zip(
        st.columns(2), ("Reading", "Writing"), (before.prefill, before.decode),
        (after.prefill, after.decode), strict=True,
    ):  # fmt: skip
        column.metric(
            label, f"{new:,.0f} tok/s", delta=f"{100 * (new / old - 1):+.0f}%",
            delta_description=f"dense {old:,.0f}", border=True,
        )  # fmt: skip


def text(run: Job) -> None:
    """The same prompt answered by both, side by side."""
    st.subheader("Text", anchor=False)
    words, length = st.columns([5, 1], vertical_alignment="bottom")
    prompt = words.text_input(
        "Prompt", PROMPT, key="compare.prompt", persist_state="session", max_chars=4000,
        help="Both models continue it greedily: always the likeliest next token.",
    )  # fmt: skip
    tokens = length.number_input(
        "New tokens", 1, 512, 48, 16, key="compare.tokens", persist_state="session"
    )
    job = _latest("texts", run)
    if _start_button("Write", "compare.write", job, ":material/edit:", ready=bool(prompt.strip())):
        _start("texts", "Text", tasks.texts(run.result, prompt, int(tokens)), run, prompt)
    if job is None or not _finished(job):
        return
    for column, name, written in zip(
        st.columns(2), ("Dense", "Pruned"), (job.result.before, job.result.after), strict=True
    ):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{name}** · {written.new_tokens} tokens in {written.seconds:.1f} s")
            # st.text: what a model writes must not be read as markup
            st.text(f"{job.about[1]}{written.text}", width="stretch")


def downloads(run: Job) -> None:
    """Recipe, report, and the model folder on the server."""
    st.subheader("Take it along", anchor=False)
    files, folder = st.columns([3, 2], gap="large")
    written = run.result.report
    found = {
        kind: (job.result, job.about)
        for kind in ("perplexity", "speed", "texts")
        if (job := _latest(kind, run)) is not None and job.status == "done"
    }
    model = state.model_name(run.about.model.source)
    files.caption("The report contains the comparisons made above.")
    with files.container(horizontal=True):
        for label, data, name, mime in (
            ("Recipe", run.about.to_yaml(), "recipe.yaml", "application/yaml"),
            ("Report, Markdown", report.as_markdown(model, written, found), "report.md",
             "text/markdown"),
            ("Report, JSON", report.as_json(written, found), "report.json", "application/json"),
        ):  # fmt: skip
            st.download_button(
                label, data, name, mime, icon=":material/download:", on_click="ignore",
                key=f"compare.{name}",
            )  # fmt: skip
    with folder:
        _save(run)


def _save(run: Job) -> None:
    forms = list(FORMS)
    form = st.radio(
        "Save the pruned model on the server as", [entry.name for entry in forms],
        captions=[entry.summary for entry in forms], key="compare.form",
        format_func=lambda name: FORMS.entry(name).title, persist_state="session",
    )  # fmt: skip
    stored = GGUF_TYPES[1]
    if FORMS[form].single_file:
        stored = st.segmented_control(
            "Numbers", GGUF_TYPES, default=stored, required=True, key="compare.gguf_type",
            help="How the matrices are stored: 32, 16 or about 8 bits each.",
        )  # fmt: skip
    where, button = st.columns([3, 1], vertical_alignment="bottom")
    default = f"out/{run.about.model.source.split('/')[-1]}-pruned"
    target = where.text_input(
        "Folder", default, key="compare.folder",
        help="Inside: " + ", ".join(f"`{root}`" for root in paths.roots()),
    )  # fmt: skip
    job = _latest("save", run)
    with button:
        ready = bool(target.strip())
        pressed = _start_button("Save", "compare.save", job, ":material/save:", ready)
    if pressed:
        try:
            path = paths.allowed(target.strip())
        except HeadroomError as error:
            st.error(str(error))
        else:
            task = tasks.saving(run.result, path, form, stored, _measured(run))
            _start("save", "Save", task, run)
    if job is not None and _finished(job):
        st.success(f"Saved to {job.result}.")


def _measured(run: Job) -> tasks.Pair | None:
    """Perplexities of this run, when they were measured on this page."""
    job = _latest("perplexity", run)
    return job.result if job is not None and job.status == "done" else None


def _latest(kind: str, run: Job) -> Job | None:
    """The newest job of this kind about this run."""
    own = [job for job in work.jobs(kind) if job.about[0] == run.id]
    return own[-1] if own else None


def _start_button(label: str, key: str, job: Job | None, icon: str, ready: bool = True) -> bool:
    busy = job is not None and job.active
    return st.button(label, key=key, icon=icon, disabled=busy or not ready)


def _start(kind: str, title: str, task: Work, run: Job, *about: Any) -> None:
    work.submit(kind, title, task, device=state.device(), about=(run.id, *about))
    st.rerun()


def _finished(job: Job) -> bool:
    """True when there is a result; shows progress or the closing sentence otherwise."""
    if job.active:
        watch(job)
    outcome(job)
    return job.status == "done"
