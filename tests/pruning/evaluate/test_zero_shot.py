"""Zero-shot tasks: the figures are lm_eval's own, to the last digit, dense and pruned."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import pruning
from pruning.api import from_memory
from pruning.artifacts import zero_shot as zero_shot_data
from pruning.artifacts.zero_shot import TASK_NAMES, ZeroShot, markdown
from pruning.cli.main import main
from pruning.evaluate import task_data, task_sources, zero_shot
from pruning.pipeline import prune
from pruning.utils.errors import Cancelled, SourceError, UsageError
from tests.helpers import families
from tests.helpers.task_rows import COUNT, write_rows

lm_eval = pytest.importorskip("lm_eval")  # an extra, which a machine that only computes may lack
OWN = {
    "boolq": "super_glue/boolq/default.yaml",
    "piqa": "piqa/piqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
}
SLICES = os.environ.get("HEADROOM_TASK_DATA")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("tasks") / "hub")


@pytest.fixture(scope="module")
def pair(model_folder):
    """A dense and a pruned model."""
    dense = pruning.load(str(model_folder), device="cpu")
    recipe = families.recipe(ffn__ratio=0.5, heads__ratio=0.5)
    return dense, prune(dense, recipe).pruned


def directly(loaded, folder, names, tmp_path, definitions=None):
    """What lm_eval says by itself: its own definitions, files in place of the hub."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    own = Path(lm_eval.__file__).parent / "tasks"
    for name in names:
        text = f"include: {(definitions or {}).get(name, own / OWN[name])}\ntask: {name}\n"
        text += "dataset_path: json\ndataset_name: null\ntraining_split: null\ntest_split: null\n"
        text += f"dataset_kwargs: {{data_files: {{validation: {folder / name}.jsonl}}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text + "fewshot_split: null\n")
    return lm_eval.simple_evaluate(
        HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=8),
        tasks=list(names),
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
    )


def same(report: ZeroShot, found) -> None:
    """All figures of ``report`` are those that lm_eval ``found``."""
    for score in report.scores:
        theirs = found["results"][score.task]
        assert score.plain_accuracy == theirs["acc,none"]
        assert score.plain_stderr == theirs["acc_stderr,none"]
        assert score.accuracy == theirs.get("acc_norm,none", theirs["acc,none"])
        assert score.stderr == theirs.get("acc_norm_stderr,none", theirs["acc_stderr,none"])
        assert score.version == str(found["versions"][score.task])
        assert score.items == found["n-samples"][score.task]["effective"]


def test_figures_are_those_of_lm_eval_itself(pair, folder, tmp_path):
    for loaded in pair:
        report = zero_shot(loaded, task_sources(TASK_NAMES, folder))
        same(report, directly(loaded, folder, TASK_NAMES, tmp_path))
        assert report.versions["lm_eval"] == lm_eval.__version__
        assert [score.items for score in report.scores] == [COUNT] * 7
        assert report.mean == sum(score.accuracy for score in report.scores) / 7


def test_so_are_the_likelihoods_wherever_the_blocks_wait(pair, model_folder):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from pruning.evaluate.harness import HarnessModel

    def asked():
        pieces = families.SAMPLE.read_text(encoding="utf-8").split()
        parts = [
            (" ".join(pieces[at : at + 9]), f" {pieces[at + 9]} the") for at in range(0, 90, 9)
        ]
        return [Instance("loglikelihood", {}, part, i) for i, part in enumerate(parts)]

    offloaded = pruning.load(str(model_folder), device="cpu", placement="memory")
    heard = []
    for loaded, reference in ((pair[0], pair[0]), (pair[1], pair[1]), (offloaded, pair[0])):
        ours = HarnessModel(
            loaded.model, loaded.tokenizer, 4, heard.append, lambda: False
        ).loglikelihood(asked())
        theirs = HFLM(
            pretrained=reference.model, tokenizer=reference.tokenizer, batch_size=4
        ).loglikelihood(asked())
        if loaded is offloaded:
            assert [a for a, _ in ours] == pytest.approx([a for a, _ in theirs], rel=1e-5)
        else:
            assert ours == theirs and len({a for a, _ in ours}) == 10
    assert len(heard) == 30


def asked_by(source, folder):
    """Every prompt and answer of a task, as lm_eval makes them from its definition."""
    from lm_eval.tasks import TaskManager

    folder.mkdir(exist_ok=True)
    (folder / f"{source.name}.yaml").write_text(source.yaml)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    task = manager.load([source.name])["tasks"][source.name]
    task.build_all_requests(rank=0, world_size=1)
    return [instance.args for instance in task.instances]


def test_ready_made_rows_give_the_same_prompts(pair, folder, tmp_path):
    ready = write_rows(tmp_path / "ready", ready=True)
    (ready / "openbookqa.jsonl").rename(ready / "openbook_qa.jsonl")
    sources = task_sources(TASK_NAMES, ready), task_sources(TASK_NAMES, folder)
    for source, known in zip(*sources, strict=True):
        asked = asked_by(source, tmp_path / "ours")
        assert asked == asked_by(known, tmp_path / "theirs") and len(asked) >= 2 * COUNT
    ours, theirs = (zero_shot(pair[0], some) for some in sources)
    bare = [replace(score, data="") for score in theirs.scores]
    assert [replace(score, data="") for score in ours.scores] == bare
    assert ours.scores[6].data.startswith("openbook_qa.jsonl (12 rows, ")
    assert ours.scores[6].data != theirs.scores[6].data


def test_a_limit_progress_and_a_cancel(pair, folder):
    sources, steps = task_sources(("boolq", "arc_easy"), folder), []
    before = pair[0].tokenizer.pad_token
    report = zero_shot(pair[0], sources, limit=3, progress=steps.append)
    assert [score.items for score in report.scores] == [3, 3] and report.limit == 3
    assert [score.available for score in report.scores] == [COUNT, COUNT]
    assert [s.done for s in steps] == sorted(s.done for s in steps) and steps[-1].done == 1000
    halfway = [s.done for s in steps if s.message == "boolq, 6 of 6 answers"]
    assert 0 < halfway[0] < 300  # arc_easy has twice as many answers, which are longer
    assert pair[0].tokenizer.pad_token == before
    one = zero_shot(pair[0], sources, limit=1)
    assert one.scores[0].stderr is None and one.mean_stderr is None
    assert "±" not in markdown([one]) and "±" in markdown([report])
    assert ZeroShot.from_json(report.to_json()) == report
    with pytest.raises(Cancelled):
        zero_shot(pair[0], sources, should_cancel=lambda: True)
    with pytest.raises(UsageError, match="at least 1"):
        zero_shot(pair[0], sources, limit=0)


def test_answers_longer_than_the_model_are_refused(pair, tmp_path):
    row = {"query": "the", "choices": ["sea " * 60, "the"], "gold": 0}
    (tmp_path / "piqa.jsonl").write_text(json.dumps(row))
    with pytest.raises(UsageError, match="60 tokens, the model only 48 positions"):
        zero_shot(pair[0], task_sources(("piqa",), tmp_path))


def _refused(run, *words):
    """The one sentence that ``run`` is refused with, before any weight is read."""
    status, err = run(*words)
    last = err.splitlines()[-1]
    assert status in (1, 2) and len(last) <= 310 and "[load" not in err, err
    return last


def _no_network(*_, **__):
    raise ConnectionError("Couldn't reach 'baber/piqa' on the Hub (LocalEntryNotFoundError)")


@pytest.fixture
def run(capsys):
    def go(*words):
        status = main(["evaluate", *map(str, words)])
        return status, capsys.readouterr().err

    return go


def test_refusals_come_before_weights(run, model_folder, folder, tmp_path, monkeypatch):
    ask = (model_folder, "--device", "cpu", "--tasks")
    assert "did you mean 'piqa'" in _refused(run, *ask, "piqq", "--task-data", folder)
    assert "named twice" in _refused(run, *ask, "piqa,piqa", "--task-data", folder)
    assert "is no folder" in _refused(run, *ask, "piqa", "--task-data", tmp_path / "x")
    assert "holds no piqa.jsonl" in _refused(run, *ask, "piqa", "--task-data", tmp_path)
    assert "limit of at least 1" in _refused(
        run, *ask, "piqa", "--task-data", folder, "--limit", "0"
    )
    assert "Nothing to evaluate" in _refused(run, model_folder)
    with monkeypatch.context() as patch:
        patch.setattr("datasets.load_dataset", _no_network)
        assert "check the network, or name a folder" in _refused(run, *ask, "piqa")
    monkeypatch.setattr(zero_shot_data, "find_spec", lambda name: None)
    assert "pip install 'headroom[eval]'" in _refused(run, *ask, "piqa", "--task-data", folder)


def test_the_other_model_is_looked_for_before_the_long_work(run, model_folder, tmp_path):
    text = ("--text", "sample", "--seq-len", "16", "--device", "cpu")
    status, err = run(model_folder, *text, "--against", tmp_path / "x")
    assert status == 1 and "[evaluate" not in err and str(tmp_path / "x") in err


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "holds no rows"),
        ('{"query": "a"}', "neither goal, label, sol1, sol2 nor choices, gold, query"),
        ('{"query": "a", "choices": ["b", "c"], "gold": 0}\n[1]', "no JSON object in line 2"),
        ('{"query": "a", "choices": ["b"], "gold": 0}\n{"query": "a"}', "Row 2 of .* has no"),
        ('{"query": "a", "choices": ["b", "c"], "gold": 2}', "place of the right answer"),
    ],
)
def test_rows_that_cannot_be_used_are_named(text, wrong, tmp_path):
    (tmp_path / "piqa.jsonl").write_text(text)
    with pytest.raises(SourceError, match=wrong):
        task_sources(("piqa",), tmp_path)


def test_the_command_prints_scores_and_versions(model_folder, folder, capsys):
    words = ["evaluate", str(model_folder), "--device", "cpu", "--tasks", "all"]
    words += ["--task-data", str(folder), "--limit", "2"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["zero_shot"]
    assert [score["task"] for score in found["scores"]] == list(TASK_NAMES)
    assert found["versions"]["lm_eval"] == lm_eval.__version__ and "piqa 1.0" in found["protocol"]
    assert main([*words, "--against", str(model_folder)]) == 0
    printed = capsys.readouterr().out
    assert "mean" in printed and "the first 2 items" in printed and "agreement: 1.0" in printed


@pytest.mark.skipif(not SLICES, reason="HEADROOM_TASK_DATA names no folder of real rows")
def test_real_rows_give_what_lm_eval_says(tokenizer, tmp_path):
    model = families.llama_grouped(vocab_size=200, max_position_embeddings=1024).eval()
    dense = from_memory(model, tokenizer)
    recipe = families.recipe(ffn__ratio=0.5, heads__ratio=0.5)
    pair = dense, prune(dense, recipe).pruned
    names = tuple(name for name in TASK_NAMES if (Path(SLICES) / f"{name}.jsonl").is_file())
    ours = {name: task_data.PREPARED / f"{name}.yaml" for name in names if name != "hellaswag"}
    for loaded in pair:
        report = zero_shot(loaded, task_sources(names, Path(SLICES)))
        same(report, directly(loaded, Path(SLICES), names, tmp_path, ours))
