"""Compare: the dense and the pruned model side by side."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import pages
from app.charts import plan_map, theme
from app.components import recipe_summary
from app.components.block_picker import OPEN_WORDS, on_open
from app.components.text import count, duration, size
from app.components.widgets import page_header, show_problem
from app.jobs.queue import Job
from app.pages import Page
from app.session import state, visitor_jobs
from app.views.compare import evaluation
from app.views.compare import export as compare_take
from app.views.compare import methods as compare_methods
from app.views.compare import runs as compare_runs
from app.views.compare import tokens as compare_tokens

PAGE = Page(
    "Compare",
    ":material/balance:",
    place=50,
    jobs=("perplexity", "speed", "texts", "tokens", "save", "pack", "methods"),
)


def main() -> None:
    page_header(
        "Compare",
        "What pruning cost and what it saved: perplexity, size, speed and text, before and after.",
        measured_model=False,
    )
    show_problem()
    runs = visitor_jobs.runs()
    one, every, two, methods = st.tabs(
        ["One run", f"All runs ({len(runs)})", "Two runs", "Methods at one size"],
        default="Methods at one size" if _only_methods(runs) else None,
    )
    with one:
        if runs:
            run(choose_run(runs))
        else:
            nothing_yet()
    with every:
        if runs:
            compare_runs.section(runs)
        else:
            st.info("Nothing was pruned in this session yet.")
    with two:
        compare_runs.pair(runs)
    with methods:
        compare_methods.section()


def _only_methods(runs: list[Job]) -> bool:
    """Whether there is nothing else to see."""
    return not runs and visitor_jobs.latest(compare_methods.KIND) is not None


def run(job: Job) -> None:
    """Everything about one run."""
    sizes(job)
    quality, speed = st.columns([3, 2], gap="large")
    with quality:
        evaluation.perplexity(job)
    with speed:
        evaluation.speed(job)
    compare_tokens.section(job)
    evaluation.text(job)
    maps(job)
    compare_take.section(job)
    compare_runs.open_recipe(job)


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
                "filled in, this takes a few minutes.",
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


def choose_run(runs: list[Job]) -> Job:
    """The newest run, or another of this session."""
    ids = [job.id for job in runs]
    labels = {
        job.id: f"{compare_runs.name(job, runs)} {recipe_summary.summary(job.request)} · took "
        f"{duration(job.elapsed)}"
        for job in runs
    }
    if len(runs) == 1:
        st.caption(f"Run: {labels[ids[0]]}")
        return runs[0]
    chosen = st.selectbox(
        "Run",
        ids,
        format_func=labels.get,
        key="compare.run",
        help="The newest first. All results of the session stay; the server keeps the weights of "
        "the last three runs of each visitor.",
    )
    return next(job for job in runs if job.id == chosen)


def sizes(job: Job) -> None:
    """Before and after in four numbers."""
    before, after = job.result.report.before, job.result.report.after
    values = (
        ("Parameters", before.parameters, after.parameters, count, None),
        ("Weights", before.bytes, after.bytes, size, None),
        (
            "FLOPs per token",
            before.flops_per_token,
            after.flops_per_token,
            count,
            f"Multiply-adds count as two, at {before.context} tokens of context.",
        ),
        (
            "Block parameters",
            before.block_parameters,
            after.block_parameters,
            count,
            "Parameters of the transformer blocks only, without embeddings.",
        ),
    )
    for column, (label, old, new, unit, help_text) in zip(st.columns(4), values, strict=True):
        column.metric(
            label,
            unit(new),
            delta=f"-{100 * (old - new) / old:.1f}%",
            delta_color="inverse",
            delta_description=f"of {unit(old)}",
            help=help_text,
            border=True,
        )


def maps(run: Job) -> None:
    """Heads and channels, block by block; a click opens a block where its model is measured."""
    plan, measured = run.result.plan, state.current_measurement()
    same = run.request.model.source == measured.model
    block = state.current_block() if same else None

    def opens(chart: str) -> Any:
        return (lambda: on_open(chart)) if same else "ignore"

    st.subheader("What was kept", anchor=False)
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("**Heads**", help="Filled square: kept. ✕: pruned; hover for the reason.")
        st.plotly_chart(
            plan_map.head_map(plan, open_block=block),
            config=theme.chart_config("heads-kept"),
            key="compare.heads",
            selection_mode="points",
            on_select=opens("compare.heads"),
            alt="Map of blocks and heads: filled squares are kept, crosses are pruned",
        )
    with right:
        st.markdown("**FFN channels**")
        st.plotly_chart(
            plan_map.ffn_share(plan, open_block=block),
            config=theme.chart_config("channels-kept"),
            key="compare.ffn",
            selection_mode="points",
            on_select=opens("compare.ffn"),
            alt="Share of FFN channels that each block keeps",
        )
    if same:
        st.caption(f"{OPEN_WORDS} Now open: block {block}.")


main()
