"""The numbers behind charts, as rows, and as CSV to take along."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import streamlit as st

from pruning.events import ModuleEvent
from pruning.plan import Plan

Rows = Sequence[dict[str, Any]]


def as_csv(rows: Rows) -> str:
    """CSV with a header; columns in the order of the first row."""
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    risky = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if risky else value


def csv_button(rows: Rows, name: str, key: str) -> None:
    """Download ``rows`` as ``name.csv``."""
    st.download_button(
        f"{name}.csv", as_csv(rows), f"{name}.csv", "text/csv", key=key, on_click="ignore",
        icon=":material/table:", type="tertiary", help="The numbers of this chart",
    )  # fmt: skip


def width_rows(plan: Plan) -> list[dict[str, Any]]:
    """What each block keeps."""
    return [
        {
            "block": index,
            "heads": block.attention.units,
            "heads_kept": len(block.attention.kept),
            "kv_heads_kept": len(block.attention.kept_groups),
            "channels": block.ffn.units,
            "channels_kept": len(block.ffn.kept),
        }
        for index, block in enumerate(plan.blocks)
    ]


def head_rows(plan: Plan) -> list[dict[str, Any]]:
    """Every head, whether it stays and why it goes."""
    rows = []
    for index, block in enumerate(plan.blocks):
        reasons = block.attention.reasons()
        rows += [
            {"block": index, "head": head, "kept": head not in reasons,
             "reason": reasons.get(head, "")}
            for head in range(block.attention.units)
        ]  # fmt: skip
    return rows


def error_rows(events: Sequence[ModuleEvent]) -> list[dict[str, Any]]:
    """Relative reconstruction error of each module that was cut."""
    return [
        {
            "block": event.block,
            "module": event.kind,
            "units": event.units,
            "removed": len(event.removed),
            "error_cut": event.error_before,
            "error_recovered": event.error_after,
            "seconds": event.seconds,
        }
        for event in events
    ]


def token_rows(found: Any) -> list[dict[str, Any]]:
    """Every predicted token of a TokenLosses."""
    return [
        {"window": index, "token": place, "text": passage.pieces[place],
         "dense_nats": before, "pruned_nats": after}
        for index, passage in enumerate(found.passages)
        for place, (before, after) in enumerate(
            zip(passage.dense, passage.pruned, strict=True), start=1
        )
    ]  # fmt: skip
