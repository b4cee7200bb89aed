"""The curve of a training: how far the model still is from the dense one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.charts import theme
from app.charts.chart import Axis, Chart, Row, Series
from pruning.artifacts.tuning import TuningStep


def tuning_rows(curve: Sequence[TuningStep]) -> list[Row]:
    """Mean divergence since the point before, in nats per token."""
    return [
        {"step": point.step, "tokens": point.tokens, "divergence": point.loss} for point in curve
    ]


def tuning_chart(curve: Sequence[TuningStep]) -> Chart:
    """Divergence from the dense model along the tokens that were read. The axis along holds the
    whole training, so that the line grows to the right while it works."""
    rows = tuning_rows(curve)
    last = curve[-1]
    tokens = max(last.tokens * last.steps / last.step, 1.0)
    most = max(point.loss for point in curve) or 1.0
    line = Series(
        "training text",
        [point.tokens for point in curve],
        [point.loss for point in curve],
        [f"after {p.tokens:,} tokens: {p.loss:.3f} nats per token" for p in curve],
        theme.ATTENTION,
        symbol="circle",
        size=6,
        dash="solid",
    )
    return Chart(
        f"Divergence from the dense model along the training, {len(curve)} points so far; from "
        f"{curve[0].loss:.3f} to {last.loss:.3f} nats per token.",
        [line],
        Axis("tokens read", (-0.02 * tokens, 1.02 * tokens), _ticks(tokens)),
        Axis("nats per token", (0.0, 1.1 * most), _ticks(most)),
        rows,
    )


def _ticks(most: float) -> dict[float, str]:
    """Ticks at round numbers from zero to ``most``, five or so."""
    decade = 10.0 ** math.floor(math.log10(most))
    step = next(each * decade / 10 for each in (2, 5, 10, 20, 50) if 5 * each * decade / 10 >= most)
    count = math.floor(most / step + 1e-9)
    return {place * step: f"{place * step:,.10g}" for place in range(count + 1)}
