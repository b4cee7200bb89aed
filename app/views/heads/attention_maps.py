"""Where the picked head looks: attention maps of a sentence, computed once in a job."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app.charts.pattern import block_mosaic, mosaic_alt, pattern_alt, pattern_map, pattern_rows
from app.components.chart import show_figure
from app.components.csv_export import csv_button
from app.components.job_progress import outcome, watch
from app.jobs import tasks
from app.jobs.job import Job
from app.session import paths, state, visitor_jobs
from app.views.heads.selection import on_pick
from pruning.utils.errors import HeadroomError

SENTENCE = "The river carried the boat past the old mill, and the boat carried the children home."
KIND = "patterns"
HELP = (
    "Each row is a word piece, each column one it can look back at; bright means much attention. "
    "Heads that look alike here have a small divergence. One sentence is only an example: τ goes "
    "by all measured text."
)


def show_patterns(block: int, head: int) -> None:
    """The maps of the block and of ``head``, or how to get them."""
    st.markdown("**Where heads look**", help=HELP)
    sentence = st.text_input(
        "Sentence",
        SENTENCE,
        max_chars=400,
        key="heads.sentence",
        persist_state="session",
        help="The first 48 word pieces are shown.",
    )
    job = _job_for(_request(sentence))
    if job is not None and job.active:
        watch(job)
    elif job is not None and job.status == "done":
        _draw(job, block, head)
    else:
        outcome(job)
        st.info(
            f"This picture needs the model itself. It loads {state.current_model_name()} into "
            "memory, unless it is there already, and reads the sentence once.",
            icon=":material/visibility:",
        )
        if st.button("Load and look", key="heads.look", icon=":material/play_arrow:"):
            _start(sentence)


def _request(sentence: str) -> tuple:
    return state.measured_model(), sentence, state.device()


def _job_for(request: tuple) -> Job | None:
    return next((job for job in reversed(visitor_jobs.jobs(KIND)) if job.request == request), None)


def _start(sentence: str) -> None:
    model, _, device = request = _request(sentence)
    try:
        paths.check_recipe(state.draft_recipe().changed(model=model.model_dump()))
        work = tasks.looking(visitor_jobs.models(), model, sentence, device)
        visitor_jobs.submit(KIND, "Attention maps", work, device=device, request=request)
    except HeadroomError as error:
        st.error(str(error))
        return
    st.rerun()


def _draw(job: Job, block: int, head: int) -> None:
    patterns = job.result
    if block >= len(patterns.maps) or head >= len(patterns.maps[block]):
        return  # of another model with the same name
    maps = patterns.maps[block]
    left, right = st.columns(2, gap="medium")
    with left:
        st.caption(f"All heads of block {block}; click one to pick it")
        drawn, alt = block_mosaic(maps, selected=head), mosaic_alt(block, len(maps))
        show_figure(drawn, alt, "attention-heads", "heads.mosaic", on_pick)
    with right:
        st.caption(f"Head {head} of block {block}, word piece by word piece")
        drawn = pattern_map(maps[head], patterns.tokens)
        alt = pattern_alt(block, head, maps[head], patterns.tokens)
        show_figure(drawn, alt, "attention", "heads.pattern")
    csv_button(
        partial(pattern_rows, patterns.tokens, maps[head]), "attention", "heads.attention.csv"
    )
