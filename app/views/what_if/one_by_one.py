"""All heads of a block, each off alone, against what the criteria predicted."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app.charts.ablation import foretold, head_rows, rank_words
from app.components.block_picker import block_slider
from app.components.chart import show_chart
from app.components.csv_export import csv_button
from app.components.job_progress import outcome, watch
from app.jobs.ablation_tasks import Question
from app.jobs.job import Job
from app.session.state import current_measurement
from app.views.what_if import asking, selection
from pruning.artifacts.ablation import LeaveOneOut, Predictor

HELP = (
    "Every head of the block is switched off alone. What that really changes is compared with what "
    "each criterion says of the head, by Spearman's rank correlation: 1 is the same order, 0 none. "
    "For τ it is the divergence from the nearest head: a head that has a twin should not be missed."
)


def show(asked: Question) -> None:
    """The section: block, button, scatter and table."""
    st.subheader("Every head of a block, one by one", anchor=False, help=HELP)
    if len(current_measurement().shape.blocks) > 1:
        slider, button = st.columns([3, 2], vertical_alignment="bottom", gap="medium")
    else:
        slider = button = st.container()
    with slider:
        block = block_slider("what_if.block")
    job = asking.each(block, asked, now=False)
    busy, done = job is not None and job.active, job is not None and job.status == "done"
    if button.button(
        f"Switch off each head of block {block}",
        key="what_if.each",
        icon=":material/scatter_plot:",
        disabled=busy or done,
    ):
        job = asking.each(block, asked, now=True)
        busy, done = job is not None and job.active, False
    if busy and not asking.settled(job):
        watch(job, "each")
    elif job is not None and job.status == "done":
        _show(job)
    else:
        outcome(job)
        st.caption(
            "Nothing is computed yet for this block and this text: the button runs the model once "
            "for each head."
        )


def _show(job: Job) -> None:
    found: LeaveOneOut = job.result
    named = {predictor.name: predictor for predictor in found.predictors}
    picture, table = st.columns([3, 2], gap="medium")
    with table:
        predictor = _choose(named)
        _table(found)
    with picture:
        st.markdown(f"**{predictor.title}:** {rank_words(predictor)}")
        chart = foretold(found, predictor)
        options = {
            "on_select": lambda: selection.on_pick(selection.SCATTER),
            "selection_mode": "points",
        }
        show_chart(chart, "heads-one-by-one", selection.SCATTER, **options)
        st.caption(
            f"{found.protocol} Click a head to switch it off above. Took {job.elapsed:.1f} s."
        )
    csv_button(partial(head_rows, found), "heads-one-by-one", "what_if.each.csv")


def _choose(named: dict[str, Predictor]) -> Predictor:
    name = st.selectbox(
        "Predicted by",
        list(named),
        key="what_if.predictor",
        persist_state="session",
        format_func=lambda name: named[name].title,
    )
    return named[name]


def _table(found: LeaveOneOut) -> None:
    """Rank correlations, the best first."""
    ranked = sorted(found.predictors, key=lambda p: -(p.rank_correlation or 0.0))
    st.dataframe(
        [{"predicted by": p.title, "Spearman's ρ": p.rank_correlation} for p in ranked],
        hide_index=True,
        width="stretch",
        height=36 * (min(len(ranked), 8) + 1),
        column_config={"Spearman's ρ": st.column_config.NumberColumn(format="%.2f", width=110)},
    )
    st.caption(
        f"With {len(found.changes)} heads one of twenty random orders reaches |ρ| = "
        f"{found.by_chance:.2f}."
    )
