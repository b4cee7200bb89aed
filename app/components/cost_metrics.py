"""What a model costs before and after pruning, as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.components.text import count, size
from pruning.artifacts.shapes import Footprint


def cost_metrics(
    columns: Sequence[Any], before: Footprint, after: Footprint, *, border: bool = False
) -> None:
    """Parameters, weights, FLOPs and, where a fourth column is, block parameters."""
    flops = f"Multiply-adds count as two, at {before.context} tokens of context."
    blocks = "Parameters of the transformer blocks only, without embeddings."
    rows = (
        ("Parameters", "parameters", count, None),
        ("Weights", "bytes", size, None),
        ("FLOPs per token", "flops_per_token", count, flops),
        ("Block parameters", "block_parameters", count, blocks),
    )
    for column, (label, field, unit, help_text) in zip(columns, rows, strict=False):
        old, new = getattr(before, field), getattr(after, field)
        column.metric(
            label,
            unit(new),
            delta=f"-{100 * (old - new) / old:.1f}%" if old != new else None,
            delta_color="inverse",
            delta_description=f"of {unit(old)}",
            help=help_text,
            border=border,
        )
