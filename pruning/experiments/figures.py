"""Experiments that only measure: similarity graphs (figure 3) and mean activations (figure 5)."""

from __future__ import annotations

from pruning.artifacts.measurement import Measurement
from pruning.experiments.base import Experiment
from pruning.experiments.drawing import Bar, bars, graph
from pruning.experiments.result import Result, Value
from pruning.planning.layout import head_layout
from pruning.planning.similarity import candidates, edges

TENSORS = {
    "residual": "input of the block",
    "attention": "output of the attention module",
    "ffn": "input of the FFN's second layer",
}


def graphs(experiment: Experiment, measurement: Measurement, quick: bool) -> Result:
    """The pairs of heads below τ in the chosen blocks, and a drawing of each block."""
    (tau,) = experiment.tau.values()
    depth = len(measurement.blocks)
    first = round(depth * experiment.blocks.start / experiment.blocks.of)
    last = min(first + experiment.blocks.end - experiment.blocks.start, depth)
    rows: list[dict[str, Value]] = []
    drawings = []
    for index in range(first, last):
        divergence = measurement.blocks[index].divergence
        pairs = edges(divergence, tau)
        gone = [candidate.unit for candidate in candidates(divergence, tau)]
        for one, other, value in sorted(pairs, key=lambda edge: edge[2]):
            rows.append({"block": index, "head": one, "like": other, "divergence, nats": value})
        title = (
            f"{measurement.model}, block {index}: {len(pairs)} pairs of {len(divergence)} heads "
            f"below τ = {tau:g}, {len(gone)} would go"
        )
        positions = [(float(x), float(y)) for x, y in head_layout(divergence)]
        drawings.append(graph(title, positions, pairs, gone))
    columns = ("block", "head", "like", "divergence, nats")
    return _result(experiment, measurement, quick, columns, rows, drawings)


def activations(experiment: Experiment, measurement: Measurement, quick: bool) -> Result:
    """Mean and mean absolute activation of each tensor: of the whole model, then by block."""
    rows: list[dict[str, Value]] = []
    drawings = []
    for name, words in TENSORS.items():
        found = [block.activations[name] for block in measurement.blocks]
        parts = [("all", sum(f.mean for f in found), sum(f.mean_absolute for f in found))]
        mean = [(place, a / len(found), b / len(found)) for place, a, b in parts]
        mean += [(str(i), f.mean, f.mean_absolute) for i, f in enumerate(found)]
        rows += [
            {
                "tensor": words,
                "block": place,
                "signed mean": _rounded(a),
                "absolute mean": _rounded(b),
            }
            for place, a, b in mean
        ]
        shown = [Bar(f"block {i}", f.mean_absolute) for i, f in enumerate(found)]
        drawings.append(bars(f"{measurement.model}: mean absolute activation, {words}", "", shown))
    columns = ("tensor", "block", "signed mean", "absolute mean")
    return _result(experiment, measurement, quick, columns, rows, drawings)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _result(
    experiment: Experiment,
    measurement: Measurement,
    quick: bool,
    columns: tuple[str, ...],
    rows: list[dict[str, Value]],
    drawings: list[str],
) -> Result:
    return Result(
        name=experiment.name,
        title=experiment.title,
        model=measurement.model,
        paper_model=None,
        quick=quick,
        shows=experiment.shows,
        protocol=(
            f"{measurement.corpus}, {measurement.samples} windows of {measurement.seq_len} tokens, "
            f"seed {measurement.seed}, {measurement.dtype}."
        ),
        notes=experiment.notes,
        columns=columns,
        rows=tuple(rows),
        drawings=tuple(drawings),
    )
