"""Telling two models apart in the background: a run in memory, a folder read block by block."""

from __future__ import annotations

import pytest

from app.jobs.difference_task import Side, Text, comparing
from tests.helpers import families
from tests.helpers.fixtures import model_folder, own_cache, tokenizer  # noqa: F401


def test_the_work_compares_a_run_with_a_folder(model_folder, tmp_path):  # noqa: F811
    from pruning.checkpoint import save
    from pruning.models.loading import load
    from pruning.pipeline import prune

    recipe = families.recipe(calibration__source="sample", ffn__ratio=0.3)
    run = prune(load(str(model_folder)), recipe)
    folder = save(run, tmp_path / "pruned")
    sides = Side("#1", run=run), Side("folder", place=str(folder))
    seen = []
    task = comparing(*sides, Text("sample", 1, 16), "cpu")
    found = task(seen.append, lambda: False)
    assert found.change == pytest.approx(0.0, abs=1e-6) and found.kept == 1.0
    assert found.outputs.divergence == pytest.approx(0.0, abs=1e-5)
    assert (found.first, found.second) == ("#1", "folder")
    assert {step.stage for step in seen} == {"load", "compare"}
