"""Small experiments: quick, with few methods, on a model of six blocks."""

from __future__ import annotations

from pruning.experiments import cells as cells_module
from pruning.experiments.base import EXPERIMENTS
from pruning.experiments.executors import local as local_module
from pruning.experiments.facts import PaperModel
from pruning.experiments.request import Request

GPT2 = PaperModel("GPT-2", ("gpt2",), 6, 48, (0, 6), 48)
QUICK = Request(quick=True, windows=2)


def few(name, *labels):
    """An experiment with only some of its methods."""
    found = EXPERIMENTS[name]
    chosen = tuple(m for m in found.methods if m.label in labels)
    assert len(chosen) == len(labels)
    return found.model_copy(update={"methods": chosen})


def counted(monkeypatch):
    """The recipes of cells that are really computed from now on."""
    made = []

    def compute(loaded, recipe, *rest, **more):
        made.append(recipe)
        return cells_module.compute_cell(loaded, recipe, *rest, **more)

    monkeypatch.setattr(local_module, "compute_cell", compute)
    return made
