"""Difference: what tells two models apart, tensor by tensor."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import pages
from app.charts.difference import block_changes
from app.components.chart import show_chart
from app.components.csv_export import csv_button
from app.components.job_progress import outcome, watch
from app.components.widgets import corpus_options, page_header, show_problem
from app.jobs import tasks
from app.jobs.difference_task import Side, Text, comparing
from app.jobs.job import Work
from app.pages import Page
from app.session import paths, state, visitor_jobs
from app.views.compare.runs import title
from pruning.artifacts.difference import Difference
from pruning.difference.html import to_html

PAGE = Page("Difference", ":material/difference:", place=55, jobs=("difference",))

KIND = "difference"


def main() -> None:
    page_header(
        "Difference",
        "Two models side by side: which tensors lost what, how far the rest has moved, and how "
        "alike their blocks answer.",
        measured_model=False,
    )
    show_problem()
    form()
    job = visitor_jobs.latest(KIND)
    if job is None:
        nothing_yet()
    elif job.active:
        watch(job)
    else:
        outcome(job)
        if job.status == "done":
            show(job.result)


def sides() -> dict[str, Side]:
    """What can be compared by name: the models of this session's runs, and the embedded one."""
    done = visitor_jobs.runs()
    found = {"demo": Side(state.model_name("demo"), place="demo")}
    for job in done:
        if tasks.has_models(job.result):
            name = title(job, done)
            for which in ("pruned", "dense"):
                words = name if which == "pruned" else f"{name.split()[0]} before: dense"
                found[f"{job.id}.{which}"] = Side(words, run=job.result, which=which)
    return found


def form() -> None:
    """The two models, and the text that they read."""
    known = sides()
    runs = [key for key in known if key != "demo"]
    usuals = (runs[1], runs[0]) if runs else ("demo", None)
    chosen = []
    for column, label, usual in zip(st.columns(2), ("First", "Second"), usuals, strict=True):
        options = list(known)
        typed = st.session_state.get(f"field.difference.{label}")
        options += [typed] if typed and typed not in known else []
        chosen.append(
            column.selectbox(
                label,
                options,
                index=None if usual is None else options.index(usual),
                format_func=lambda key: known[key].name if key in known else key,
                key=f"field.difference.{label}",
                accept_new_options=True,
                persist_state="session",
                placeholder="A folder, a .gguf file or a hub id",
                help="A run of this session, or type a folder or .gguf file on the server, or a "
                f"hub id. {paths.inside_roots()}.",
            )
        )
    reads, text, windows, length = st.columns([2, 3, 1, 1], vertical_alignment="bottom")
    asked = reads.toggle("Compare their outputs too", True, key="difference.reads")
    source = text.selectbox(
        "Text",
        key="field.difference.text",
        disabled=not asked,
        **corpus_options(
            texts_only=True, chosen=st.session_state.get("field.difference.text"), first="sample"
        ),
    )
    sizes = [
        windows.number_input(
            "Windows", 1, 64, 2, key="field.difference.windows", disabled=not asked
        ),
        length.number_input(
            "Tokens each", 2, 4096, 128, 32, key="field.difference.len", disabled=not asked
        ),
    ]
    wanted = Text(source, int(sizes[0]), int(sizes[1])) if asked else None
    busy = visitor_jobs.active((KIND,)) is not None
    if st.button(
        "Compare",
        type="primary",
        icon=":material/difference:",
        disabled=busy or None in chosen,
        key="difference.start",
    ):
        first, second = (known.get(key) or Side(key, place=key) for key in chosen)
        start(first, second, wanted)


def start(first: Side, second: Side, text: Text | None) -> None:
    """Queue the comparison; what may not be read on this server is refused in one sentence."""
    device = state.device()

    def make() -> Work:
        for side in (first, second):
            if side.place is not None:
                paths.check_model(side.place)
        if text is not None:
            paths.check_corpus(text.source)
        return comparing(first, second, text, device)

    visitor_jobs.start(KIND, f"Difference of {first.name} and {second.name}"[:120], make)


def nothing_yet() -> None:
    """The page before any comparison: what will be here."""
    with st.container(
        border=True,
        horizontal_alignment="center",
        gap="medium",
        height=360,
        vertical_alignment="center",
    ):
        st.markdown("### :material/difference: Nothing compared yet", width="content")
        st.markdown(
            "Choose two models and press Compare: the dense one and a run, two runs, or two "
            "folders. Heads and channels are matched by the plans that made them.",
            width="content",
            text_alignment="center",
        )
        if not visitor_jobs.runs():
            st.caption("There is no run of yours yet.", width="content")
            pages.link("prune")


PERCENT = st.column_config.NumberColumn(format="percent")
BLOCKS: dict[str, Any] = {
    "kept": PERCENT,
    "attention change": PERCENT,
    "FFN change": PERCENT,
    "output error": st.column_config.NumberColumn(
        format="percent", help="Of the residual stream behind the block, mean over tokens"
    ),
    "output cosine": st.column_config.NumberColumn(format="%.4f"),
}
TENSORS: dict[str, Any] = {
    "tensor": st.column_config.TextColumn(width="large"),
    "kept": st.column_config.NumberColumn(
        format="percent", help="Elements of the second over those of the first, padding left out"
    ),
    "compared": st.column_config.NumberColumn(format="localized", help="Elements that both have"),
    "change": st.column_config.NumberColumn(
        format="percent", help="Norm of what changed over the norm of what was there"
    ),
}


def show(found: Difference) -> None:
    """The answer in one sentence, by block, and tensor by tensor."""
    st.subheader(f"{found.first} → {found.second}", anchor=False)
    st.markdown(f"**{found.headline()}**")
    said = [found.matching, *(r for r in found.remarks if r != found.matching)]
    said += [f"Outputs: {found.outputs.protocol()}"] if found.outputs else []
    st.caption(" ".join(said))
    if any(block.attention_change or block.ffn_change for block in found.blocks) or found.outputs:
        show_chart(block_changes(found), "difference", "difference.chart")
    blocks, tensors = st.tabs(["Block by block", "Tensor by tensor"])
    with blocks:
        st.dataframe(
            found.block_rows(), hide_index=True, width="stretch", column_config=BLOCKS, height=400
        )
    with tensors:
        st.dataframe(
            found.tensor_rows(), hide_index=True, width="stretch", column_config=TENSORS, height=400
        )
    with st.container(horizontal=True):
        csv_button(found.tensor_rows, "tensors", "difference.tensors.csv")
        csv_button(found.block_rows, "blocks", "difference.blocks.csv")
        for label, make, name, mime in (
            ("One page, HTML", lambda: to_html(found), "difference.html", "text/html"),
            ("JSON", found.to_json, "difference.json", "application/json"),
        ):
            st.download_button(
                label,
                make,
                name,
                mime,
                key=f"difference.{name}",
                on_click="ignore",
                icon=":material/download:",
            )


main()
