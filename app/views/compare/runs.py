"""Compare: all runs of the session at once."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import pages
from app.charts import runs as charts
from app.components import recipe_summary
from app.components.chart import show_chart
from app.components.csv_export import csv_button
from app.components.job_progress import watch
from app.components.text import count
from app.jobs import compare_tasks, tasks
from app.jobs.job import Job
from app.session import state, visitor_jobs
from app.views.compare import questions
from app.views.compare.questions import PERPLEXITY, SPEED
from pruning.utils.errors import HeadroomError


def number(job: Job, runs: list[Job]) -> str:
    """``#3``: runs count from 1 in the order they were made."""
    return f"#{len(runs) - runs.index(job)}"


def title(job: Job, runs: list[Job]) -> str:
    """``#3 demo · FFN 20% · recovery refit``."""
    return f"{number(job, runs)} {recipe_summary.summary(job.request)}"


def section(runs: list[Job]) -> None:
    """Table, charts, and the button that fills what is missing."""
    if not runs:
        st.info("Nothing was pruned in this session yet.")
        return
    scores = {job.id: questions.perplexity_pairs(job) for job in runs}
    _evaluate_all(runs)
    protocol = _protocol(list(dict.fromkeys(p for pairs in scores.values() for p in pairs)))
    pairs = {job.id: scores[job.id].get(protocol) for job in runs}
    rows = [_row(job, runs, pairs[job.id]) for job in runs]
    st.dataframe(rows, hide_index=True, width="stretch", column_config=_COLUMNS, placeholder="–")
    csv_button(lambda: rows, "runs", "compare.runs.csv")
    _clouds(runs, pairs)


def _protocol(protocols: list[str]) -> str | None:
    """The protocol to compare by; None when nothing was evaluated."""
    if not protocols:
        return None
    chosen = protocols[0]
    if len(protocols) > 1:
        chosen = st.selectbox(
            "Protocol of the perplexities",
            protocols,
            key="compare.protocol",
            help="Perplexities can be compared only on the same text, cut in the same way.",
        )
    st.caption(f"Perplexity: {chosen}")
    return chosen


def _evaluate_all(runs: list[Job]) -> None:
    kinds = (PERPLEXITY.kind, SPEED.kind)
    busy = next((job for job in visitor_jobs.jobs(*kinds) if job.active), None)
    able = [job for job in runs if tasks.has_models(job.result)]
    with st.container(horizontal=True, vertical_alignment="center"):
        pressed = st.button(
            "Evaluate and time all",
            key="compare.all",
            icon=":material/speed:",
            disabled=busy is not None or not able,
        )
        unloaded = len(runs) - len(able)
        note = f" Weights unloaded, results kept: {unloaded}." if unloaded else ""
        st.caption(f"On {questions.text_in_words()}, as chosen under One run.{note}")
    if pressed:
        try:
            for job in able:
                work = questions.on_text(compare_tasks.perplexities, job)
                questions.queue(PERPLEXITY, job, work)
                if questions.result(SPEED, job) is None:
                    questions.queue(SPEED, job, compare_tasks.speeds(job.result))
        except HeadroomError as error:
            st.error(str(error))
        else:
            st.rerun()
    if busy is not None:
        watch(busy, "all")


_COLUMNS = {
    "parameters": st.column_config.NumberColumn(format="compact"),
    "blocks kept": st.column_config.NumberColumn(format="percent"),
    "perplexity": st.column_config.NumberColumn(format="%.2f"),
    "÷ dense": st.column_config.NumberColumn(format="%.3f"),
    "tokens/s, prefill": st.column_config.NumberColumn(format="%.0f"),
    "tokens/s, decode": st.column_config.NumberColumn(format="%.1f"),
    "seconds": st.column_config.NumberColumn(format="%.0f", help="Time that the run took"),
}


def _row(job: Job, runs: list[Job], pair: compare_tasks.Pair | None) -> dict[str, Any]:
    report, speed = job.result.report, questions.result(SPEED, job)
    return {
        "run": number(job, runs),
        "recipe": recipe_summary.summary(job.request),
        "parameters": report.after.parameters,
        "blocks kept": report.kept_block_parameters,
        "perplexity": pair.after.perplexity if pair else None,
        "÷ dense": pair.after.perplexity / pair.before.perplexity if pair else None,
        "tokens/s, prefill": speed.after.prefill if speed else None,
        "tokens/s, decode": speed.after.decode if speed else None,
        "seconds": job.elapsed,
    }


def _clouds(runs: list[Job], pairs: dict[str, compare_tasks.Pair | None]) -> None:
    """Perplexity against size and against speed."""
    scored = [job for job in runs if pairs[job.id]]
    if not scored:
        st.info("Evaluate a run to see perplexity against size and speed here.")
        return
    timed = {job.id: rates for job in scored if (rates := questions.result(SPEED, job))}
    left, right = st.columns(2, gap="large")
    with left:
        sizes = {
            job.id: (job.result.report.before.parameters, job.result.report.after.parameters)
            for job in scored
        }
        _cloud("compare.size", "parameters", runs, pairs, sizes)
    with right:
        if not timed:
            st.info("Time a run to see perplexity against tokens per second here.")
            return
        rates = {key: (both.before.decode, both.after.decode) for key, both in timed.items()}
        _cloud("compare.rate", "tokens per second, decode", runs, pairs, rates)


def _cloud(key: str, what: str, runs: list[Job], pairs: dict, x: dict[str, tuple]) -> None:
    """``x``: of each run to draw, the value before and after."""
    jobs = [job for job in runs if job.id in x]
    points = [
        (
            x[job.id][1],
            pairs[job.id].after.perplexity,
            number(job, runs),
            f"{title(job, runs)}<br>"
            f"{count(x[job.id][1])} {what}, perplexity {pairs[job.id].after.perplexity:.2f}",
        )
        for job in jobs
    ]
    # dense models measured again and again differ in speed: each model once, at its newest figure
    dense = {job.request.model.source: job for job in reversed(jobs)}
    origins = [(x[job.id][0], pairs[job.id].before.perplexity) for job in dense.values()]
    show_chart(charts.cloud(points, origins, what), key.replace(".", "-"), key)


def open_recipe(run: Job) -> None:
    """Edit the recipe of ``run`` again."""
    if st.button("Open recipe on Prune", key="compare.open", icon=":material/folder_open:"):
        state.replace_draft(run.request)
        pages.switch("prune")
