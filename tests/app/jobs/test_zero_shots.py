"""Zero-shot tasks and continuations as the worker does them: the figures are the engine's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.jobs import compare_tasks
from app.jobs.job import Job
from pruning.api import from_memory
from pruning.evaluate import compare_continuations, continuations, task_sources, zero_shot
from pruning.evaluate.continuations import prompts
from pruning.pipeline import prune
from pruning.utils.errors import Cancelled, SourceError
from tests.helpers import families
from tests.helpers.fixtures import own_cache, tokenizer  # noqa: F401
from tests.helpers.task_rows import write_rows

NAMES = ("boolq", "piqa")


@pytest.fixture(scope="module")
def run(tokenizer):  # noqa: F811
    model = families.llama_grouped(vocab_size=200)
    families.randomise(model, 3)
    return prune(from_memory(model.eval(), tokenizer), families.recipe(ffn__ratio=0.5))


def test_both_models_are_scored_as_the_engine_scores_each(run, tmp_path):
    folder = write_rows(tmp_path / "rows")
    task = compare_tasks.zero_shots(run, NAMES, 3, str(folder))
    job, lines = Job("id", "me", "zero_shot", "Tasks", "cpu", task), []
    job.track = type(job.track)(task.steps)

    def report(step):
        job.report(step)
        lines.append(job.track.line())

    pair = task(report, lambda: False)
    for side, loaded in ((pair.before, run.dense), (pair.after, run.pruned)):
        alone = zero_shot(loaded, task_sources(NAMES, folder), limit=3)
        assert replace(alone, seconds=0.0) == replace(side, seconds=0.0)
    assert "scoring answers (dense: boolq, 1 of 6 answers)" in lines
    assert "scoring answers (pruned: piqa, 6 of 6 answers)" in lines
    assert job.fraction == 1.0
    with pytest.raises(Cancelled):
        task(lambda step: None, lambda: True)
    with pytest.raises(SourceError, match=r"holds no boolq\.jsonl"):
        compare_tasks.zero_shots(run, NAMES, 3, str(tmp_path))(report, lambda: False)


def test_continuations_are_the_engines(run, monkeypatch):
    few = prompts()[:3]
    monkeypatch.setattr(continuations, "prompts", lambda: few)
    found = compare_tasks.written(run)(lambda step: None, lambda: False)
    models = run.dense.model, run.pruned.model, run.dense.tokenizer
    assert found == compare_continuations(*models) and found.prompts == 3
