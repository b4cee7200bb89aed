"""Compare: all runs of the session at once, and any two side by side."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from app import pages
from app.charts import runs as charts
from app.charts import theme
from app.components import recipe_summary
from app.components.csv_export import csv_button, width_rows
from app.components.job_progress import watch
from app.components.text import count
from app.jobs import compare_tasks, tasks
from app.jobs.queue import Job
from app.session import state, visitor_jobs
from app.views.compare import evaluation


def name(job: Job, runs: list[Job]) -> str:
    """``#3``: runs count from 1 in the order they were made."""
    return f"#{len(runs) - runs.index(job)}"


def section(runs: list[Job]) -> None:
    """Table, charts, and the button that fills what is missing."""
    scores = {
        job.id: {pair.after.protocol(): pair for pair in evaluation.perplexity_pairs(job)}
        for job in runs
    }
    protocols = list(dict.fromkeys(p for found in scores.values() for p in found))
    _evaluate_all(runs)
    chosen = None
    if protocols:
        chosen = (
            st.selectbox(
                "Protocol of the perplexities",
                protocols,
                key="compare.protocol",
                help="Perplexities can be compared only on the same text, cut in the same way.",
            )
            if len(protocols) > 1
            else protocols[0]
        )
        st.caption(f"Perplexity: {chosen}")
    rows = [_row(job, runs, scores[job.id].get(chosen)) for job in runs]
    st.dataframe(rows, hide_index=True, width="stretch", column_config=_COLUMNS, placeholder="–")
    csv_button(lambda: rows, "runs", "compare.runs.csv")
    _clouds(runs, {job.id: scores[job.id].get(chosen) for job in runs})


def _evaluate_all(runs: list[Job]) -> None:
    source, seq_len, windows = evaluation.text_choice()
    busy = next((job for job in visitor_jobs.jobs("perplexity", "speed") if job.active), None)
    able = [job for job in runs if tasks.has_models(job.result)]
    with st.container(horizontal=True, vertical_alignment="center"):
        pressed = st.button(
            "Evaluate and time all",
            key="compare.all",
            icon=":material/speed:",
            disabled=busy is not None or not able,
        )
        gone = len(runs) - len(able)
        note = f" Weights let go, results kept: {gone}." if gone else ""
        st.caption(
            f"On {source}, {windows} windows of {seq_len} tokens, as chosen under One run.{note}"
        )
    if pressed:
        for job in able:
            evaluation.queue_on_text(job, "perplexity", "Perplexity", compare_tasks.perplexities)
            if evaluation.latest("speed", job) is None:
                evaluation.queue(job, "speed", "Speed", compare_tasks.speeds(job.result))
        st.rerun()
    if busy is not None:
        watch(busy, "all")


_COLUMNS = {
    "parameters": st.column_config.NumberColumn(format="compact"),
    "blocks kept": st.column_config.NumberColumn(format="percent"),
    "perplexity": st.column_config.NumberColumn(format="%.2f"),
    "÷ dense": st.column_config.NumberColumn(format="%.3f"),
    "tokens/s, reading": st.column_config.NumberColumn(format="%.0f"),
    "tokens/s, writing": st.column_config.NumberColumn(format="%.1f"),
    "seconds": st.column_config.NumberColumn(format="%.0f", help="Time that the run took"),
}


def _speed(job: Job) -> compare_tasks.Pair | None:
    found = evaluation.latest("speed", job)
    return found.result if found is not None and found.status == "done" else None


def _row(job: Job, runs: list[Job], pair: compare_tasks.Pair | None) -> dict[str, Any]:
    report, speed = job.result.report, _speed(job)
    return {
        "run": name(job, runs),
        "recipe": recipe_summary.summary(job.request),
        "parameters": report.after.parameters,
        "blocks kept": report.kept_block_parameters,
        "perplexity": pair.after.perplexity if pair else None,
        "÷ dense": pair.after.perplexity / pair.before.perplexity if pair else None,
        "tokens/s, reading": speed.after.prefill if speed else None,
        "tokens/s, writing": speed.after.decode if speed else None,
        "seconds": job.elapsed,
    }


def _clouds(runs: list[Job], pairs: dict[str, compare_tasks.Pair | None]) -> None:
    """Perplexity against size and against speed."""
    scored = [job for job in runs if pairs[job.id]]
    if not scored:
        st.info("Evaluate a run to see perplexity against size and speed here.")
        return
    left, right = st.columns(2, gap="large")
    sizes = {job.id: (job.result.report.before, job.result.report.after) for job in scored}
    with left:
        _cloud(
            "compare.size",
            "parameters",
            runs,
            scored,
            pairs,
            {key: (old.parameters, new.parameters) for key, (old, new) in sizes.items()},
        )
    timed = [job for job in scored if _speed(job)]
    with right:
        if timed:
            speeds = {
                job.id: (_speed(job).before.decode, _speed(job).after.decode) for job in timed
            }
            _cloud("compare.rate", "tokens per second, writing", runs, timed, pairs, speeds)
        else:
            st.info("Time a run to see perplexity against tokens per second here.")


def _cloud(
    key: str, title: str, runs: list[Job], jobs: list[Job], pairs: dict, x: dict[str, tuple]
) -> None:
    points = [
        (
            x[job.id][1],
            pairs[job.id].after.perplexity,
            name(job, runs),
            f"{name(job, runs)} {recipe_summary.summary(job.request)}<br>"
            f"{count(x[job.id][1])} {title}, perplexity {pairs[job.id].after.perplexity:.2f}",
        )
        for job in jobs
    ]
    # dense models measured again and again differ in speed: each model once, at its newest figure
    dense = {job.request.model.source: job for job in reversed(jobs)}
    origins = [(x[job.id][0], pairs[job.id].before.perplexity) for job in dense.values()]
    st.plotly_chart(
        charts.cloud(points, origins, title),
        key=key,
        config=theme.chart_config(key.replace(".", "-")),
        alt=f"Perplexity of {len(points)} runs against {title}; lower is better",
    )


def pair(runs: list[Job]) -> None:
    """Two runs next to each other: figures, settings, blocks."""
    if len(runs) < 2:
        st.info("Prune once more with other settings to put two runs side by side.")
        pages.link("prune")
        return
    by_id = {job.id: job for job in runs}
    words = {job.id: f"{name(job, runs)} {recipe_summary.summary(job.request)}" for job in runs}
    sides = []
    for column, label, start in zip(st.columns(2), ("First", "Second"), (1, 0), strict=True):
        key = f"compare.pair.{label.lower()}"
        sides.append(
            column.selectbox(label, list(words), index=start, format_func=words.get, key=key)
        )
    first, second = (by_id[side] for side in sides)
    if first is second:
        st.info("Choose two different runs.")
        return
    _figures(first, second, runs)
    _blocks(first, second, runs)


def _figures(first: Job, second: Job, runs: list[Job]) -> None:
    names = (name(first, runs), name(second, runs))
    scores = [
        {p.after.protocol(): p for p in evaluation.perplexity_pairs(job)} for job in (first, second)
    ]
    rows = []
    for title, read in (
        ("Parameters", lambda job: count(job.result.report.after.parameters)),
        ("Block parameters kept", lambda job: f"{job.result.report.kept_block_parameters:.1%}"),
        ("FLOPs per token", lambda job: count(job.result.report.after.flops_per_token)),
        (
            "Tokens per second, writing",
            lambda job: f"{_speed(job).after.decode:.1f}" if _speed(job) else "not timed",
        ),
    ):
        rows.append({"": title, names[0]: read(first), names[1]: read(second)})
    protocols = list(dict.fromkeys([*scores[0], *scores[1]]))
    labels = perplexity_labels(len(protocols))
    for label, protocol in zip(labels, protocols, strict=True):
        cells = [f"{s[protocol].after.perplexity:.2f}" if protocol in s else "–" for s in scores]
        rows.append({"": label, names[0]: cells[0], names[1]: cells[1]})
    for title, one, other in recipe_summary.differences(first.request, second.request):
        rows.append({"": title[:1].upper() + title[1:], names[0]: one, names[1]: other})
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        column_config={"": st.column_config.TextColumn(width="large")},
    )
    # below: a protocol is longer than any cell
    below = zip(labels, protocols, strict=True)
    st.caption("  \n".join(f"{label}: {protocol}" for label, protocol in below))


def perplexity_labels(protocols: int) -> list[str]:
    """``Perplexity``, or numbered ones where there are several protocols."""
    if protocols == 1:
        return ["Perplexity"]
    return [f"Perplexity {number}" for number in range(1, protocols + 1)]


def _blocks(first: Job, second: Job, runs: list[Job]) -> None:
    names = (name(first, runs), name(second, runs))
    plans = first.result.plan, second.result.plan
    if len(plans[0].blocks) != len(plans[1].blocks):
        st.info("The two models have different numbers of blocks, so blocks are not compared.")
        return
    st.markdown("**Block by block**")
    st.plotly_chart(
        charts.block_differences(*plans, names),
        key="compare.pair.bars",
        config=theme.chart_config("differences"),
        alt="Difference of the shares of heads and FFN channels that two runs keep, per block",
    )
    rows = []
    for index, (one, other) in enumerate(zip(plans[0].blocks, plans[1].blocks, strict=True)):
        heads = set(one.attention.kept), set(other.attention.kept)
        channels = set(one.ffn.kept), set(other.ffn.kept)
        either = len(channels[0] | channels[1]) or 1
        rows.append(
            {
                "block": index,
                f"heads only in {names[0]}": _numbers(heads[0] - heads[1]),
                f"heads only in {names[1]}": _numbers(heads[1] - heads[0]),
                f"channels in {names[0]}": len(channels[0]),
                f"channels in {names[1]}": len(channels[1]),
                "channels in common": len(channels[0] & channels[1]) / either,
            }
        )
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        height=300,
        column_config={
            "channels in common": st.column_config.NumberColumn(
                format="percent", help="Of the channels that either keeps"
            )
        },
    )
    with st.container(horizontal=True):
        csv_button(lambda: rows, "differences", "compare.differences.csv")
        for side, plan in zip(names, plans, strict=True):
            csv_button(
                partial(width_rows, plan), f"widths-{side[1:]}", f"compare.widths.{side}.csv"
            )


def _numbers(units: set[int]) -> str:
    return ", ".join(map(str, sorted(units))) or "–"


def open_recipe(run: Job) -> None:
    """Edit the recipe of ``run`` again."""
    if st.button("Open recipe on Prune", key="compare.open", icon=":material/folder_open:"):
        state.replace_draft(run.request)
        pages.switch("prune")
