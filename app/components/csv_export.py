"""The numbers behind charts, as rows, and as CSV to take along."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st

from app.charts import theme
from pruning.artifacts.events import ModuleEvent
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import Plan
from pruning.planning.analysis import SimilarityCount

Rows = Sequence[dict[str, Any]]
MakeRows = Callable[[], Rows]
"""Called when somebody takes the file. It must not hold a model: pages outlive what they show."""


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
            list(theme.PICTURES),
            format_func=theme.PICTURES.get,
            default="svg",
            required=True,
            key=theme.PICTURE,
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
            {
                "block": index,
                "head": head,
                "kept": head not in reasons,
                "reason": reasons.get(head, ""),
            }
            for head in range(block.attention.units)
        ]
    return rows


def pair_rows(divergence: np.ndarray) -> list[dict[str, Any]]:
    """JS divergence in nats of every two heads of a block, from ``divergence`` [heads, heads]."""
    first, second = np.triu_indices(len(divergence), 1)
    values = divergence[first, second]
    return [
        {"head": i, "other": j, "divergence_nats": value}
        for i, j, value in zip(first.tolist(), second.tolist(), values.tolist(), strict=True)
    ]


def pattern_rows(tokens: Sequence[str], probabilities: np.ndarray) -> list[dict[str, Any]]:
    """Where each word piece looks: ``probabilities`` [tokens, tokens] of one head."""
    return [
        {
            "from": place,
            "from_text": tokens[place],
            "to": other,
            "to_text": tokens[other],
            "attention": float(probabilities[place, other]),
        }
        for place in range(len(tokens))
        for other in range(place + 1)
    ]


def overview_rows(
    plan: Plan, counts: Sequence[SimilarityCount], losses: Mapping[str, Sequence[float]] | None
) -> list[dict[str, Any]]:
    """The similarity graph of each block in numbers, what goes, and the expected losses."""
    rows = width_rows(plan)
    for index, (row, count) in enumerate(zip(rows, counts, strict=True)):
        row |= {"edges": count.edges, "groups_alike": count.groups}
        for kind, values in (losses or {}).items():
            row[f"expected_loss_{kind}_nats"] = values[index]
    return rows


def magnitude_rows(measurement: Measurement) -> list[dict[str, Any]]:
    """|x| at each place of each block: mean, maximum, quantiles."""
    return [
        {
            "block": index,
            "place": place,
            "mean": summary.mean_absolute,
            "maximum": summary.maximum,
            **{
                f"quantile_{level:g}": value
                for level, value in zip(summary.levels, summary.quantiles, strict=True)
            },
        }
        for index, block in enumerate(measurement.blocks)
        for place, summary in block.activations.items()
    ]


def channel_rows(measurement: Measurement) -> list[dict[str, Any]]:
    """The largest channels by mean |x| that the measurement kept."""
    return [
        {"block": index, "place": place, "channel": channel, "mean": value}
        for index, block in enumerate(measurement.blocks)
        for place, summary in block.activations.items()
        for channel, value in zip(summary.top_channels, summary.top_values, strict=True)
    ]


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


def token_rows(losses: Any) -> list[dict[str, Any]]:
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
