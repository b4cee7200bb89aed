"""What is off changes: the loss, the divergence, the next token, the text token by token."""

from __future__ import annotations

from functools import partial
from math import exp

import streamlit as st

from app.charts.ablation import next_tokens
from app.components import token_marks
from app.components.chart import show_chart
from app.components.csv_export import csv_button
from app.components.job_progress import outcome, watch
from app.jobs.ablation_tasks import Question
from app.jobs.job import Job
from app.session import state
from app.views.what_if import asking, suggestions
from pruning.artifacts.ablation import Ablation, WhatIf

DIVERGENCE_HELP = (
    "How far the distribution of the next token moves from the dense model's, on average over the "
    "text: 0 where nothing changes. KL is Kullback-Leibler (dense ‖ changed), JS Jensen-Shannon, "
    "at most ln 2 = 0.693."
)
LOSS_HELP = "Mean negative log-likelihood of the text's tokens, dense → changed, and its rise."


def show(off: Ablation, asked: Question) -> WhatIf | None:
    """The answer for ``off``, or how to get it."""
    if off.is_empty:
        suggestions.show()
        return None
    st.markdown(f"**Off:** {off.words()}")
    job = asking.tried(off, asked, now=False)
    if job is None and asking.is_ready():
        job = asking.tried(off, asked, now=True)
    if job is not None and not asking.settled(job):
        watch(job, every=asking.LOOK)
        return None
    if job is None or job.status != "done":
        outcome(job)
        _offer(off, asked, again=job is not None)
        return None
    _show(job)
    return job.result


def _offer(off: Ablation, asked: Question, *, again: bool) -> None:
    if not again:
        st.info(
            f"This needs the model itself: {state.current_model_name()} is loaded once, then each "
            "click is answered at once.",
            icon=":material/memory:",
        )
    label = "Try again" if again else "Load and try"
    if st.button(label, key="what_if.try", icon=":material/play_arrow:", type="primary"):
        if asking.tried(off, asked, now=True) is not None:
            st.rerun()


def _show(job: Job) -> None:
    found: WhatIf = job.result
    change, after = found.change, found.next
    loss, kl, js = st.columns([2, 1, 1])
    loss.metric(
        "Loss, nats per token",
        f"{change.loss_before:.3f} → {change.loss_after:.3f}",
        f"{change.rise:+.4f}",
        delta_color="inverse",
        help=LOSS_HELP,
    )
    kl.metric("KL, nats", f"{change.kl:.4f}", help=DIVERGENCE_HELP)
    js.metric("JS, nats", f"{change.js:.4f}", help=DIVERGENCE_HELP)
    st.caption(
        f"{found.protocol} Perplexity {exp(change.loss_before):,.1f} → "
        f"{exp(min(change.loss_after, 700)):,.1f}. Answered in {job.elapsed:.1f} s."
    )
    chart = next_tokens(after)
    st.markdown(f"**Next token after** “{_escaped(after.sentence)}”")
    show_chart(chart, "next-token", "what_if.next")
    st.caption(f"KL of this one distribution: {after.kl:.4f} nats, JS {after.js:.4f}.")
    csv_button(partial(list, chart.rows), "next-token", "what_if.next.csv")


def _escaped(text: str) -> str:
    """Text as it stands, in Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>$:#~" else letter for letter in text)


def show_text(found: WhatIf) -> None:
    """The first window, each token marked by how much less likely it became."""
    with st.expander("The text, token by token", icon=":material/format_color_text:"):
        passage = found.passages[0]
        st.html(token_marks.legend_html())
        st.html(token_marks.passage_html(passage.pieces, passage.dense, passage.pruned))
        if len(found.passages) > 1:
            st.caption(f"The first of {len(found.passages)} windows.")
