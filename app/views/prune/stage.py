"""One frame of the decision feed: its sentence, the block at work, totals and errors.

Made to be understood from the back of a room: full width, large type, one sentence per decision.
"""

from __future__ import annotations

from html import escape
from typing import Any

import networkx as nx
import pandas
import streamlit as st

from app.charts import feed as pictures
from app.charts import recovery
from app.charts.figure import figure, still
from app.charts.tuning import tuning_chart
from app.components.chart import paper, show_chart, show_figure
from app.components.headline import sentence as answer
from app.components.job_progress import place_in_line
from app.jobs.job import Job
from app.session.positions import node_positions
from app.session.shown import Tape
from app.views.prune import decisions
from app.views.prune.decisions import Frame
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.shapes import ModelShape
from pruning.planning.graph import add_decisions, ring_graph, similarity_graph

EARLIER, EARLIER_ALONE = 3, 8
"""Decisions before the newest that stay readable below the picture; on a page of its own those for
which the window has room."""

_LARGER = """<style>
@media (min-width: 1700px) and (min-height: 900px) {
  .st-key-feed-stage { zoom: 1.3 }
  .st-key-feed-stage [data-testid=stPlotlyChart] { zoom: calc(1 / 1.3) }
}
</style>"""
"""On a large screen type grows; charts measure their place themselves."""


def frame_of(job: Job, tape: Tape) -> Frame:
    """The frame at which ``tape`` stands."""
    return decisions.frame(list(job.events), tape.at(len(job.events)))


def show(job: Job, tape: Tape, measurement: Measurement, *, alone: bool = False) -> None:
    """The picture of ``job`` where ``tape`` stands: sentence, the block that is at work, totals and
    errors. ``measurement``: what the presenter's pages show; ``alone``: nothing else is on the
    page, so its type is larger still and its table is left out."""
    frame = frame_of(job, tape)
    if not alone:
        st.html(_LARGER)
    with st.container(key="feed-stage"):
        if job.check is not None:
            (st.warning if job.check.kept == "plain" else st.caption)(job.check.sentence())
        _stage(job, frame, headline(job, frame, tape), measurement, alone)
    if frame.events and not alone:
        with st.expander("All decisions so far"):
            st.dataframe(
                _table(frame), hide_index=True, height=300, width="stretch", column_config=COLUMNS
            )


def headline(job: Job, frame: Frame, tape: Tape) -> str:
    """What is said of ``frame``: the decision, the state of the work, or at its end the answer."""
    if job.active:
        progress = job.progress
        if (
            tape.playing
            and progress is not None
            and progress.stage in ("tune", "evaluate", "generate")
        ):
            return f"Every block is decided; now {job.track.line().split(', ', 1)[-1]}"
        if frame.newest is None:
            line = place_in_line(job) if job.status == "queued" else job.track.line()
            return f"Before the first cut: {line}"
    elif frame.newest is None:
        return "Before the first cut"
    elif frame.step == len(job.events) and job.status == "done" and job.result.comparison:
        return answer(job)  # the end of the story
    return decisions.sentence(frame.newest)


def _stage(job: Job, frame: Frame, headline: str, measurement: Measurement, alone: bool) -> None:
    size = "clamp(1.6rem,3.6vw,4.6rem)" if alone else "clamp(1.5rem,2.1vw,2rem)"
    # a polite live region: screen readers speak each decision; two lines keep the rest still
    st.html(
        f'<div role="status" aria-live="polite" style="font-size:{size};'
        f'font-weight:600;line-height:1.2;min-height:2.4em">{escape(headline)}</div>'
    )
    shape = _shape(job, measurement)
    left, right = st.columns([5, 7], gap="medium")
    with left:
        _block(job, frame, shape, measurement)
    with right:
        _totals(frame, shape)
        if job.curve and frame.step == len(job.events):
            _training(job)
        else:
            _errors(job, frame, shape)
    count = EARLIER_ALONE if alone else EARLIER
    earlier = [decisions.sentence(event) for event in frame.events[-1 - count : -1][::-1]]
    with st.container(key="feed-earlier"):
        st.markdown("  \n".join(earlier) or "One sentence per decision will stand here.")


def _shape(job: Job, measurement: Measurement) -> ModelShape | None:
    """Shape of the job's model, as far as the presenter's session knows it."""
    if job.status == "done":
        return job.result.plan.shape
    return measurement.shape if measurement.model == job.request.model.source else None


def _graph(job: Job, block: int, count: int, measurement: Measurement) -> nx.Graph:
    """The graph as on the Heads page where this model is measured; else a ring."""
    if measurement.model == job.request.model.source and block < len(measurement.blocks):
        divergence = measurement.blocks[block].divergence
        if len(divergence) == count:
            threshold = job.request.heads.threshold or 0.0
            return similarity_graph(divergence, threshold, node_positions(divergence))
    return ring_graph(count)


def _block(job: Job, frame: Frame, shape: ModelShape | None, measurement: Measurement) -> None:
    block = frame.block if job.events else job.request.blocks.start
    heads = decisions.units_of(job.events, block, "attention", shape)
    channels = decisions.units_of(job.events, block, "ffn", shape)
    st.markdown(
        f"##### Block {block}: heads",
        help="Lines join heads whose attention patterns are alike (JS divergence below τ). "
        "Hollow with a ✕: pruned; a thick line shows which head it is like.",
    )
    if heads:
        graph = _graph(job, block, heads, measurement)
        if frame.attention is not None:
            add_decisions(graph, frame.attention)
        fresh = frame.newest is not None and frame.newest.kind == "attention"
        drawn = pictures.heads(graph, fresh=fresh, paper=paper())
        show_figure(drawn, pictures.heads_alt(block, graph), "feed-heads", "feed.heads")
    st.markdown(f"##### Block {block}: FFN channels")
    if channels:
        kept = channels - (len(frame.ffn.removed) if frame.ffn else 0)
        alt = pictures.ffn_alt(block, channels, kept)
        show_figure(pictures.ffn_bar(channels, kept), alt, "feed-channels", "feed.ffn")


def _totals(frame: Frame, shape: ModelShape | None) -> None:
    """What has gone in all, so far."""
    columns = st.columns(3)
    every = {"attention": "", "ffn": ""}
    if shape is not None:
        every = {k: f" of {sum(b.module(k).units for b in shape.blocks):,}" for k in every}
    columns[0].metric("Heads removed", f"{frame.heads_gone:,}{every['attention']}")
    columns[1].metric("Channels removed", f"{frame.channels_gone:,}{every['ffn']}")
    if shape is not None:
        left = decisions.kept_so_far(frame.events, shape)
        columns[2].metric("Block parameters left", f"{left:.1%}")


def _errors(job: Job, frame: Frame, shape: ModelShape | None) -> None:
    blocks = len(shape.blocks) if shape else max((e.block for e in job.events), default=0) + 1
    start = job.request.blocks.start
    reach = range(start, max(blocks, start + 1))
    st.markdown(
        "##### Reconstruction error",
        help="Squared error of the module's output on the calibration text over the squared size "
        "of the dense output. 'Cut': with the remaining weights as they were. 'Recovered': after "
        "the solve.",
    )
    among = [] if job.active else job.events
    chart = recovery.error_chart(frame.events, reach, among)
    show_chart(chart, "feed-errors", "feed.errors", drawn=recovery.large_errors(chart))


def _training(job: Job) -> None:
    """In place of the errors, once every module is decided."""
    st.markdown(
        "##### Training",
        help="Kullback-Leibler divergence of the next-token probabilities from the dense model's, "
        "on the text that is trained on.",
    )
    chart = tuning_chart(job.curve)
    drawn = recovery.large_type(still(figure(chart), "training"))
    show_chart(chart, "feed-training", "feed.training", drawn=drawn)


COLUMNS: dict[str, Any] = {
    "error, cut": st.column_config.NumberColumn(format="%.4f"),
    "error, recovered": st.column_config.NumberColumn(format="%.4f"),
    "damping": st.column_config.NumberColumn(
        format="%.3g", help="How firmly the solve was held near the present weights"
    ),
    "seconds": st.column_config.NumberColumn(format="%.1f"),
}


def _table(frame: Frame) -> pandas.DataFrame:
    """One row per module, newest first."""
    return pandas.DataFrame(
        [
            {
                "block": event.block,
                "module": "FFN" if event.kind == "ffn" else "attention",
                "removed": f"{len(event.removed)} of {event.units}",
                "error, cut": event.error_before,
                "error, recovered": event.error_after,
                "damping": event.damping,
                "seconds": event.seconds,
            }
            for event in reversed(frame.events)
        ]
    )
