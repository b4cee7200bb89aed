"""The curve of a training: how far the model still is from the dense one."""

from __future__ import annotations

from collections.abc import Sequence

from app.charts import theme
from app.charts.chart import Axis, Chart, Row, Series
from pruning.artifacts.tuning import TuningStep

_TICKS = 4


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
        Axis("tokens read", (-0.02 * tokens, 1.02 * tokens), _ticks(tokens, ",.0f")),
        Axis("nats per token", (0.0, 1.1 * most), _ticks(most, ".3g")),
        rows,
    )


def _ticks(most: float, form: str) -> dict[float, str]:
    """Ticks from zero to ``most`` at even distances."""
    values = [most * place / _TICKS for place in range(_TICKS + 1)]
    return {value: format(value, form) for value in values}
