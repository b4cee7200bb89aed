"""The paper's own figures (``paper.csv``) and which models they belong to."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pruning.artifacts.shapes import ModelShape

_WHOLE = ("table", "model", "blocks", "sparsity", "method")


@dataclass(frozen=True)
class PaperModel:
    """A model of the paper: the last part of its names on the hub (lower case), its depth and
    hidden size, the blocks that were pruned and the tokens per window."""

    name: str
    ids: tuple[str, ...]
    depth: int
    hidden: int
    blocks: tuple[int, int] = (4, 30)
    seq_len: int = 128


_MODELS = (
    PaperModel("LLaMA-7B", ("llama-7b", "llama-7b-hf"), 32, 4096),
    PaperModel("LLaMA-2-7B", ("llama-2-7b", "llama-2-7b-hf"), 32, 4096),
    PaperModel("LLaMA-3.1-8B", ("llama-3.1-8b", "meta-llama-3.1-8b"), 32, 4096),
    PaperModel("Vicuna-7B", ("vicuna-7b-v1.1", "vicuna-7b-v1.3"), 32, 4096),
    PaperModel("GPT-2", ("gpt2",), 12, 768, (0, 12), 1024),
)


def paper_model(source: str, shape: ModelShape) -> PaperModel | None:
    """The model of the paper that ``source`` names, if its size is right."""
    last = source.rstrip("/").rpartition("/")[2].lower()
    for known in _MODELS:
        size = len(shape.blocks), shape.hidden_size
        if last in known.ids and size == (known.depth, known.hidden):
            return known
    return None


@cache
def _facts() -> tuple[Mapping[str, str], ...]:
    path = Path(__file__).with_name("paper.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def paper_values(
    tables: tuple[str, ...], model: PaperModel | None, setting: str, method: str
) -> dict[str, float]:
    """What the paper has in the row ``method`` of ``setting`` for ``model``, by column; accuracies
    as shares. Empty where it has none, or where the model is none of its."""
    if model is None or not method:
        return {}
    for row in _facts():
        # figures name what was read off the plot besides
        right = row["method"] == method or row["method"].startswith(f"{method} (read off")
        ours = row["model"].startswith(model.name)
        at = row["sparsity"] == setting or row["table"].startswith("figure") or method == "Dense"
        if row["table"] in tables and ours and right and at:
            names = [name for name in row if name not in _WHOLE and row[name]]
            return {name: _value(name, row[name]) for name in names}
    return {}


def _value(name: str, text: str) -> float:
    return float(text) if name in ("wikitext2", "ptb") else round(float(text) / 100, 6)
