"""Experiments: a table with its charts, the recipe of a cell, and files to take away."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import pages
from app.charts import experiments as charts
from app.charts.chart import Chart
from app.charts.picks import picked
from app.components.chart import show_chart
from app.jobs.job import Job
from app.session import state
from pruning.artifacts.recipe import Recipe
from pruning.experiments.base import EXPERIMENTS
from pruning.experiments.result import SHARES, Result

FILES = {"csv": "text/csv", "json": "application/json", "md": "text/markdown", "html": "text/html"}
LABELS = {"csv": "CSV", "json": "JSON", "md": "Markdown", "html": "HTML"}


def show(job: Job) -> None:
    """Everything about the newest table of ``job``."""
    result: Result = job.request.result
    st.subheader(result.heading, anchor=False)
    clicked = _charts(result, job.id)
    rows = _table(result, job.id)
    _open(result, clicked if clicked is not None else rows)
    if not job.active:
        _files(result, job.id)
    # what it shows stands above, beside the button
    remarks = [remark for remark in result.remarks() if remark and remark != result.shows]
    st.caption("\n".join(f"- {remark}" for remark in remarks))


def _charts(result: Result, key: str) -> int | None:
    """The charts of this kind of experiment; the row whose mark was clicked."""
    experiment = EXPERIMENTS[result.name]
    if experiment.kind == "activations":
        tensor = _one_of("Tensor", [row["tensor"] for row in result.rows], f"tensor.{key}")
        show_chart(charts.activations(result, tensor), result.name, f"experiment.bars.{key}")
        return None
    if experiment.kind == "graphs":
        for place, drawing in enumerate(result.drawings):
            st.image(drawing, width=520, caption=f"Graph {place + 1}")
        return None
    drawn = _along(result) if experiment.along_samples else _sized(result, key)
    clicked = None
    for column, (name, chart) in zip(st.columns(max(len(drawn), 1)), drawn.items(), strict=False):
        with column:
            show_chart(
                chart,
                f"{result.name}-{name}",
                f"experiment.chart.{name}.{key}",
                on_select="rerun",
                selection_mode="points",
            )
        event = st.session_state.get(f"experiment.chart.{name}.{key}")
        (found,) = picked(event, charts.CELL) or (None,)
        clicked = found if found is not None else clicked
    return clicked


def _along(result: Result) -> dict[str, Chart]:
    if len(result.rows) < 2:
        return {}
    return {text: charts.along_samples(result, text) for text in result.texts}


def _sized(result: Result, key: str) -> dict[str, Chart]:
    """Perplexities at the chosen size, and the mean accuracy where there is one."""
    sizes = charts.settings_of(result)
    if not sizes:
        return {}
    size = sizes[0] if len(sizes) == 1 else _one_of("Size", sizes, f"size.{key}")
    columns = [*result.texts, *(["mean"] if "mean" in result.columns else [])]
    return {column: charts.methods(result, size, column) for column in columns}


def _one_of(label: str, options: list[Any], key: str) -> Any:
    options = list(dict.fromkeys(options))
    return st.segmented_control(
        label,
        options,
        default=options[0],
        required=True,
        key=f"experiment.{key}",
        label_visibility="collapsed",
    )


def _table(result: Result, key: str) -> int | None:
    """All rows, the paper's value beside ours; the row that was chosen."""
    cells = any(cell is not None and cell.recipe is not None for cell in result.cells)
    names = _ordered(result.columns)
    table = st.dataframe(
        [{name: row.get(name) for name in names} for row in result.rows],
        hide_index=True,
        width="stretch",
        # None would hide the column
        column_config={name: look for name in names if (look := _format(name)) is not None},
        placeholder="–",
        key=f"experiment.table.{key}",
        **({"on_select": "rerun", "selection_mode": "single-row"} if cells else {}),
    )
    rows = table.selection.rows if cells else []
    if cells:
        st.caption("Choose a row, or click a mark of a chart, to open the recipe of its cell.")
    return rows[0] if rows else None


def _ordered(columns: tuple[str, ...]) -> list[str]:
    """The paper's columns behind those that they belong to."""
    own = [name for name in columns if not name.startswith("paper ")]
    return [each for name in own for each in (name, f"paper {name}") if each in columns]


def _format(name: str) -> Any:
    what = name.removeprefix("paper ").removesuffix(" ±")
    if what in SHARES:
        return st.column_config.NumberColumn(format="percent")
    if what in ("parameters", "MACs/token"):
        return st.column_config.NumberColumn(format="compact")
    if what in ("setting", "method"):
        return st.column_config.TextColumn(width="medium")
    if what in ("tensor", "block", "head", "like", "heads removed"):
        return None
    digits = {"seconds": "%.0f", "peak MiB": "%d", "prefill ms": "%.1f", "decode ms": "%.1f"}
    measured = "mean" in what or "divergence" in what
    return st.column_config.NumberColumn(format=digits.get(what, "%.4g" if measured else "%.2f"))


def _open(result: Result, row: int | None) -> None:
    """The recipe of the chosen cell on Prune."""
    cell = result.cells[row] if row is not None and row < len(result.cells) else None
    if cell is None:
        return
    name = f"{result.rows[row]['method']}, {result.rows[row]['setting']}".removesuffix(", ")
    if cell.recipe is None:
        st.caption(f"{name}: the dense model has no recipe.")
    elif st.button(
        f"Open the recipe of {name} on Prune", key="experiment.open", icon=":material/folder_open:"
    ):
        state.replace_draft(Recipe.parse(cell.recipe))
        pages.switch("prune")


def _files(result: Result, key: str) -> None:
    """CSV, JSON, Markdown and one page of HTML."""
    makers = {
        "csv": result.to_csv,
        "json": result.to_json,
        "md": result.to_markdown,
        "html": result.to_html,
    }
    with st.container(horizontal=True):
        for suffix, make in makers.items():
            st.download_button(
                LABELS[suffix],
                make,
                f"{result.name}.{suffix}",
                FILES[suffix],
                icon=":material/download:",
                on_click="ignore",
                key=f"experiment.file.{suffix}.{key}",
            )
