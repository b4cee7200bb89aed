"""From cells to the rows, columns and charts of an experiment's result."""

from __future__ import annotations

from collections.abc import Sequence

from pruning.artifacts.cell import Cell
from pruning.artifacts.shapes import ModelShape
from pruning.experiments.base import Experiment, named_text
from pruning.experiments.drawing import Bar, bars, lines
from pruning.experiments.facts import PaperModel, paper_model, paper_values
from pruning.experiments.places import DENSE, Place
from pruning.experiments.request import Request, adapted
from pruning.experiments.result import Result, Value, protocol_of


def result_of(
    experiment: Experiment,
    request: Request,
    source: str,
    shape: ModelShape,
    found: Sequence[tuple[Place, Cell]],
) -> Result:
    """The table and the charts of the cells that are ``found``, which need not be all of them, in
    this order; ``source`` is a model of this ``shape``."""
    known = paper_model(source, shape)
    sampling = adapted(experiment, request, source, shape)
    texts = [named_text(text)[0] for text in sampling.texts]
    made = [_row(experiment, known, texts, *pair) for pair in found]
    rows, cells = [place for place, _ in found], [cell for _, cell in found]
    columns = tuple(dict.fromkeys(name for row in made for name in row))
    recovery = sampling.recovery_samples or sampling.samples
    repaired = "" if experiment.kind == "heads" else f"recovery on {recovery}, "
    text = (
        f"Calibration: {sampling.samples} x {sampling.seq_len} tokens of {sampling.calibration}, "
        f"{repaired}seed {request.seed}."
    )
    if experiment.columns(request.quick):
        text = f"Calibration and recovery: {sampling.calibration}, seed {request.seed}."
    return Result(
        name=experiment.name,
        title=experiment.title,
        model=source,
        paper_model=known.name if known else None,
        quick=request.quick,
        shows=experiment.shows,
        protocol=f"{protocol_of(cells)} {text}",
        notes=experiment.notes,
        columns=columns,
        rows=tuple(made),
        texts=tuple(texts),
        cells=tuple(cells),
        drawings=tuple(_charts(rows, made, texts)),
    )


def _row(
    experiment: Experiment, known: PaperModel | None, texts: Sequence[str], place: Place, cell: Cell
) -> dict[str, Value]:
    row: dict[str, Value] = {"setting": place.setting, "method": place.method}
    row |= {name: score.perplexity for name, score in zip(texts, cell.texts, strict=True)}
    if cell.zero_shot is not None:
        for score in cell.zero_shot.scores:
            row[score.task], row[f"{score.task} ±"] = score.accuracy, score.stderr
        row["mean"], row["mean ±"] = cell.zero_shot.mean, cell.zero_shot.mean_stderr
    row |= {
        "kept": cell.kept,
        "heads removed": cell.heads_removed,
        "parameters": cell.parameters,
        "MACs/token": cell.macs_per_token,
        "prefill ms": None if cell.latency is None else cell.latency.prefill_ms,
        "decode ms": None if cell.latency is None else cell.latency.decode_ms,
        "seconds": cell.seconds,
        "peak MiB": cell.peak_memory_bytes >> 20,
    }
    setting = place.setting or next(iter(experiment.sizes), "")
    paper = paper_values(experiment.table, known, setting, place.paper)
    return row | {f"paper {name}": value for name, value in paper.items()}


def _charts(
    rows: Sequence[Place], made: Sequence[dict[str, Value]], texts: Sequence[str]
) -> list[str]:
    """Perplexity (and mean accuracy) as bars per setting, or as lines over the samples."""
    if any(place.x is not None for place in rows):
        return [_lines(text, rows, made) for text in texts]
    found = []
    for setting in dict.fromkeys(place.setting for place in rows if place.setting):
        here = [r for p, r in zip(rows, made, strict=True) if p.setting in ("", setting)]
        for name in (*texts, *(["mean"] if "mean" in made[0] else [])):
            share = name == "mean"
            what = "mean accuracy" if share else f"perplexity on {name}"
            shown = [
                Bar(str(row["method"]), _number(row[name]), _number(row.get(f"paper {name}")))
                for row in here
            ]
            found.append(bars(f"{setting}: {what}", "share" if share else "", shown))
    return found


def _lines(text: str, rows: Sequence[Place], made: Sequence[dict[str, Value]]) -> str:
    found: dict[str, list[tuple[float, float]]] = {}
    for place, row in zip(rows, made, strict=True):
        pairs = ((place.method, row[text]), (f"paper: {place.method}", row.get(f"paper {text}")))
        for name, value in pairs:
            number = _number(value)
            if place.method != DENSE and place.x is not None and number is not None:
                found.setdefault(name, []).append((place.x, number))
    return lines(f"Perplexity on {text}", "calibration samples", found)


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) else None
