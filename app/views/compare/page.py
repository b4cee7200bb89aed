"""Compare: the dense and the pruned model side by side."""

from __future__ import annotations

import streamlit as st

from app import pages
from app.charts import plan_map
from app.charts.chart import Chart
from app.components.block_picker import OPEN_WORDS, on_open
from app.components.chart import show_chart
from app.components.cost_metrics import cost_metrics
from app.components.headline import show_headline
from app.components.text import duration
from app.components.widgets import page_header, show_problem
from app.jobs.job import Job
from app.pages import Page
from app.session import recorded, state, visitor_jobs
from app.views.compare import evaluation, export, methods, pair, runs, tokens, zero_shot
from app.views.prune import starting

PAGE = Page(
    "Compare",
    ":material/balance:",
    place=50,
    jobs=(
        "perplexity",
        "speed",
        "texts",
        "tokens",
        "zero_shot",
        "written",
        "save",
        "pack",
        "methods",
    ),
)


def main() -> None:
    page_header(
        "Compare",
        "What pruning cost and what it saved: perplexity, size, speed and text, before and after.",
        measured_model=False,
    )
    show_problem()
    done = visitor_jobs.runs()
    sections = {
        "One run": one_run,
        f"All runs ({len(done)})": runs.section,
        "Two runs": pair.section,
        "Methods at one size": lambda _: methods.section(),
    }
    only_methods = not done and visitor_jobs.latest(methods.KIND) is not None
    tabs = st.tabs(list(sections), default="Methods at one size" if only_methods else None)
    for tab, section in zip(tabs, sections.values(), strict=True):
        with tab:
            section(done)


def one_run(done: list[Job]) -> None:
    """Everything about one run, the newest unless another is chosen."""
    if not done:
        job = recorded.job() if visitor_jobs.active(("prune",)) is None else None
        if job is None:
            nothing_yet()
            return
        recorded_run(job)
    else:
        job = choose_run(done)
    show_headline(job)
    written = job.result.report
    with st.container(key="compare-costs"):
        cost_metrics(st.columns(4), written.before, written.after, border=True)
    quality, speed = st.columns([3, 2], gap="large")
    with quality:
        evaluation.perplexity(job)
    with speed:
        evaluation.speed(job)
    zero_shot.tasks(job)
    tokens.section(job)
    evaluation.text(job)
    zero_shot.continuations(job)
    maps(job)
    export.section(job)
    runs.open_recipe(job)


def recorded_run(job: Job) -> None:
    """Says of the run below that it was recorded, and does the same live."""
    words, here = st.columns([3, 1], vertical_alignment="center")  # a row that wraps would move
    words.markdown(
        f":material/history: **{recorded.origin(job)}.** Everything below comes from a file; "
        "nothing was computed for you."
    )
    with here:
        pressed = starting.run_it_here(job, "compare.here")
    if pressed:
        starting.start(job.request, then=lambda: pages.switch("prune"))


def nothing_yet() -> None:
    """The page before any run: what will be here and how to get it."""
    running = visitor_jobs.active(("prune",))
    with st.container(border=True, horizontal_alignment="center", gap="medium"):
        st.markdown("### :material/balance: Nothing to compare yet", width="content")
        if running is not None:
            st.markdown("The run is still at work; its result will appear here.", width="content")
            pages.link("prune", "Watch it on Prune")
        else:
            st.markdown(
                "Prune a model first. With the embedded demo and the recipe that is already "
                "filled in, this takes about a minute.",
                width="content",
            )
            pages.link("prune")
    steps = st.columns(4)
    for column, (icon, title, words) in zip(steps, _PROMISES, strict=True):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{icon} {title}**")
            st.caption(words)


_PROMISES = (
    (":material/speed:", "Perplexity", "How surprised each model is by text it has not seen."),
    (":material/compress:", "Size and speed", "Parameters, bytes, FLOPs and tokens per second."),
    (":material/notes:", "Text", "The same prompt, continued by both models."),
    (":material/grid_on:", "Map", "Which heads and channels went, and why."),
)


def choose_run(done: list[Job]) -> Job:
    """The newest run, or another of this session."""
    labels = {job.id: f"{runs.title(job, done)} · took {duration(job.elapsed)}" for job in done}
    if len(done) == 1:
        st.caption(f"Run: {labels[done[0].id]}")
        return done[0]
    chosen = st.selectbox(
        "Run",
        list(labels),
        format_func=labels.get,
        key="compare.run",
        help="The newest first. All results of the session stay; the server keeps the weights of "
        "the last three runs of each visitor.",
    )
    return next(job for job in done if job.id == chosen)


def maps(run: Job) -> None:
    """Heads and channels, block by block; a click opens a block where its model is measured."""
    plan, measured = run.result.plan, state.current_measurement()
    same = run.request.model.source == measured.model
    block = state.current_block() if same else None

    def show(chart: Chart, name: str, key: str) -> None:
        opens = (lambda: on_open(key)) if same else "ignore"
        show_chart(chart, name, key, open_block=block, selection_mode="points", on_select=opens)

    st.subheader("What was kept", anchor=False)
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("**Heads**", help="Filled square: kept. ✕: pruned; hover for the reason.")
        show(plan_map.head_map(plan), "heads-kept", "compare.heads")
    with right:
        st.markdown("**FFN channels**")
        show(plan_map.ffn_share(plan), "channels-kept", "compare.ffn")
    if same:
        st.caption(f"{OPEN_WORDS} Now open: block {block}.")


main()
