"""Compare: any two runs of the session side by side."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import pages
from app.charts import runs as charts
from app.charts.plan_map import width_rows
from app.components import recipe_summary
from app.components.chart import show_chart
from app.components.csv_export import csv_button
from app.components.text import count
from app.jobs.job import Job
from app.views.compare import questions
from app.views.compare.questions import SPEED
from app.views.compare.runs import number, title


def section(runs: list[Job]) -> None:
    """Two runs next to each other: figures, settings, blocks."""
    if len(runs) < 2:
        st.info("Prune once more with other settings to put two runs side by side.")
        pages.link("prune")
        return
    by_id = {job.id: job for job in runs}
    words = {job.id: title(job, runs) for job in runs}
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
    """Sizes, speeds, perplexities, and the settings that differ."""
    names = (number(first, runs), number(second, runs))
    scores = [questions.perplexity_pairs(job) for job in (first, second)]
    figures = {
        "Parameters": lambda job: count(job.result.report.after.parameters),
        "Block parameters kept": lambda job: f"{job.result.report.kept_block_parameters:.1%}",
        "FLOPs per token": lambda job: count(job.result.report.after.flops_per_token),
        "Tokens per second, decode": _decode,
    }
    settings = [(label, read(first), read(second)) for label, read in figures.items()]
    protocols = list(dict.fromkeys([*scores[0], *scores[1]]))
    labels = perplexity_labels(len(protocols))
    for label, protocol in zip(labels, protocols, strict=True):
        cells = [f"{s[protocol].after.perplexity:.2f}" if protocol in s else "–" for s in scores]
        settings.append((label, *cells))
    for setting, *values in recipe_summary.differences(first.request, second.request):
        settings.append((setting[:1].upper() + setting[1:], *values))
    rows = [dict(zip(("", *names), row, strict=True)) for row in settings]
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        column_config={"": st.column_config.TextColumn(width="large")},
    )
    # below: a protocol is longer than any cell
    below = zip(labels, protocols, strict=True)
    st.caption("  \n".join(f"{label}: {protocol}" for label, protocol in below))


def _decode(job: Job) -> str:
    rates = questions.result(SPEED, job)
    return "not timed" if rates is None else f"{rates.after.decode:.1f}"


def perplexity_labels(protocols: int) -> list[str]:
    """``Perplexity``, or numbered ones where there are several protocols."""
    if protocols == 1:
        return ["Perplexity"]
    return [f"Perplexity {place}" for place in range(1, protocols + 1)]


def _blocks(first: Job, second: Job, runs: list[Job]) -> None:
    """What either keeps, block by block."""
    names = (number(first, runs), number(second, runs))
    plans = first.result.plan, second.result.plan
    if len(plans[0].blocks) != len(plans[1].blocks):
        st.info("The two models have different numbers of blocks, so blocks are not compared.")
        return
    st.markdown("**Block by block**")
    show_chart(charts.block_differences(*plans, names), "differences", "compare.pair.bars")
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
