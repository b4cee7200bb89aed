"""How far each module is from the dense one, before and after recovery."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from app import theme
from pruning.events import ModuleEvent

_KINDS = (("attention", theme.ATTENTION, "circle"), ("ffn", theme.FFN, "square"))


def errors(events: Sequence[ModuleEvent], blocks: range, height: int = 300) -> go.Figure:
    """Relative squared error per module on a log scale; dashed and hollow = before recovery.

    ``blocks`` fixes the width, so that the lines grow to the right while a run works.
    """
    figure = go.Figure()
    for kind, colour, symbol in _KINDS:
        own = [event for event in events if event.kind == kind]
        label = "FFN" if kind == "ffn" else kind
        for name, values, dash, mark in (
            ("cut", [e.error_before for e in own], "dot", f"{symbol}-open"),
            ("recovered", [e.error_after for e in own], "solid", symbol),
        ):
            figure.add_scatter(
                x=[event.block for event in own],
                y=[value if value > 0 else None for value in values],
                mode="lines+markers",
                name=f"{label}, {name}",
                line={"color": colour, "dash": dash, "width": 2},
                marker={"symbol": mark, "size": 7, "color": colour},
                hovertemplate=f"block %{{x}}, {label}, {name}: %{{y:.4f}}<extra></extra>",
            )
    theme.styled(figure, height=height)
    figure.update_yaxes(title="relative error", type="log", exponentformat="power", dtick=1)
    figure.update_xaxes(title="block", range=[blocks.start - 0.5, blocks.stop - 0.5])
    return figure
