"""The numbers behind charts and tables as CSV files, written when somebody takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from app.charts.chart import Row
from app.components.chart import PICTURE, PICTURES
from pruning.utils import csv_text

Rows = Sequence[Row]
MakeRows = Callable[[], Rows]
"""Called when somebody takes the file. It must not hold a model: pages outlive what they show."""


def as_csv(rows: Rows) -> str:
    """CSV with a header; columns in the order of the first row."""
    safe = ({name: _safe(value) for name, value in row.items()} for row in rows)
    return csv_text.as_csv(safe, list(rows[0])) if rows else ""


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    risky = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if risky else value


def csv_row(*files: tuple[MakeRows, str, str]) -> None:
    """Several of :func:`csv_button` side by side, and what charts are saved as."""
    st.caption(
        "The numbers behind the charts, as CSV. The camera in the corner of a chart saves it as:"
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        for make, name, key in files:
            csv_button(make, name, key)
        st.segmented_control(
            "Picture of a chart",
            list(PICTURES),
            format_func=PICTURES.get,
            default="svg",
            required=True,
            key=PICTURE,
            persist_state="session",
            label_visibility="collapsed",
        )


def csv_button(make: MakeRows, name: str, key: str) -> None:
    """Download the rows of ``make()`` as ``name.csv``, written only when it is pressed."""
    st.download_button(
        f"{name}.csv",
        lambda: as_csv(make()),
        f"{name}.csv",
        "text/csv",
        key=key,
        on_click="ignore",
        icon=":material/table:",
        type="tertiary",
        help="The numbers of this chart",
    )


def token_rows(losses: Any) -> list[Row]:
    """Every predicted token of a TokenLosses."""
    return [
        {
            "window": index,
            "token": place,
            "text": passage.pieces[place],
            "dense_nats": before,
            "pruned_nats": after,
        }
        for index, passage in enumerate(losses.passages)
        for place, (before, after) in enumerate(
            zip(passage.dense, passage.pruned, strict=True), start=1
        )
    ]
