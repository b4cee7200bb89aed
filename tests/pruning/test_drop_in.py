"""One file really is one file: dropped into its folder, each kind of extension works."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest
import torch

import pruning
from pruning import registries
from pruning.api import from_memory
from pruning.artifacts.recipe import Recipe
from pruning.checkpoint import save
from pruning.data import calibration_windows, evaluation_windows
from pruning.experiments.run import Request, run_experiment
from pruning.pipeline import prune
from pruning.planning import make_plan
from pruning.presets import with_preset
from pruning.utils.errors import BrokenExtension, UsageError
from pruning.utils.registry import Registry
from tests.helpers import families, synthetic

DropIn = Callable[[Registry, str, str], Path]
TEXTS = 'title="Mine", summary="Made by a test.", source="this test"'


def forget(registry: Registry, names: list[str]) -> None:
    """Take out what is not among ``names``, and let its module be imported again."""
    for entry in list(registry):
        if entry.name not in names:
            registry.remove(entry.name)
            sys.modules.pop(entry.module, None)


@pytest.fixture
def drop_in(tmp_path, monkeypatch):
    """``drop_in(registry, file, text)`` puts a file into the folder of a registry, for a test."""
    undo = []

    def put(registry: Registry, file: str, text: str) -> Path:
        package, folder = import_module(registry.package), tmp_path / registry.package
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(dedent(text).replace("TEXTS", TEXTS), encoding="utf-8")
        undo.append((registry, registry.names(), folder / file))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        registry.refresh()
        return folder / file

    yield put
    for registry, names, file in undo:
        file.unlink()
        forget(registry, names)


def test_a_criterion(drop_in):
    drop_in(
        registries.CRITERIA,
        "loud.py",
        """
        from pruning.criteria import CRITERIA, Criterion

        def score(statistics, shape, rng):
            return -statistics["level2_abs"]

        CRITERIA.add("loud", Criterion(score), cost="closed form", TEXTS)
        """,
    )
    measured = synthetic.measurement()
    recipe = Recipe.parse({"ffn": {"ratio": 0.3, "score": "loud"}})
    module = make_plan(measured, recipe).blocks[0].ffn
    sizes = measured.blocks[0].ffn.statistics["level2_abs"]
    assert set(module.criteria) == {"loud"}
    assert sorted(sizes[list(module.removed)]) == sorted(sizes)[-len(module.removed) :]
    assert registries.CRITERIA.entry("loud").cost == "closed form"


def test_an_allocation(drop_in):
    drop_in(
        registries.ALLOCATIONS,
        "last_block.py",
        """
        from pruning.planning.allocation import ALLOCATIONS, Allocation, BlockSparsity

        def allocate(measurement, recipe, blocks):
            return [BlockSparsity(0.0, 0.5 * (index == blocks[-1])) for index in blocks]

        ALLOCATIONS.add("last_block", Allocation(allocate), TEXTS)
        """,
    )
    plan = make_plan(synthetic.measurement(), Recipe.parse({"allocation": "last_block"}))
    assert [bool(block.ffn.removed) for block in plan.blocks] == [False, False, True]


def test_a_recovery(drop_in, tiny_model):
    drop_in(
        registries.RECOVERIES,
        "mean_only.py",
        """
        from pruning.recovery import RECOVERIES, Recovery

        RECOVERIES.add("mean_only", Recovery(lambda level: level.compensated()), TEXTS)
        """,
    )
    cut = {"ffn__ratio": 0.3, "recovery__intercept": "add"}
    mine, known = (
        prune(tiny_model("llama_grouped"), families.recipe(**cut, recovery__method=method))
        for method in ("mean_only", "bias")
    )
    ids = families.token_ids()
    logits = families.logits(mine.pruned.model, ids)
    assert torch.equal(logits, families.logits(known.pruned.model, ids))


def test_a_corpus(drop_in, tiny_model, tokenizer):
    drop_in(
        registries.CORPORA,
        "rain.py",
        """
        import torch
        from pruning.data import CORPORA, TextCorpus, TokenCorpus

        def draw(model, tokenizer, samples, seq_len, seed):
            return torch.full((samples, seq_len), 7)

        CORPORA.add("sevens", TokenCorpus(draw), TEXTS)
        CORPORA.add("rain", TextCorpus(lambda split: f"the {split} water " * 99), TEXTS)
        """,
    )
    model = tiny_model("llama_grouped").model
    assert calibration_windows("sevens", model, None, 3, 5, 0).ids.tolist() == [[7] * 5] * 3
    larger = families.llama_grouped(vocab_size=len(tokenizer))
    windows = evaluation_windows("rain", larger, tokenizer, 8, 2)
    assert "water" in tokenizer.decode(windows.ids[0])
    run = prune(tiny_model("llama_grouped"), families.recipe(calibration__source="sevens"))
    assert run.report is not None


PRESET = """\
name: gentle
title: Gentle
summary: Made by a test.
source: this test
place: 5
settings:
  ffn: {score: taylor_vector}
  recovery: {method: bias}
"""


def test_a_preset(drop_in):
    drop_in(registries.PRESETS, "gentle.yaml", PRESET)
    recipe = with_preset(Recipe.parse({"ffn": {"ratio": 0.2}, "allocation": "adaptive"}), "gentle")
    assert (recipe.ffn.score, recipe.ffn.ratio) == ("taylor_vector", 0.2)
    assert (recipe.recovery.method, recipe.allocation) == ("bias", "uniform")
    entry = registries.PRESETS.entry("gentle")
    assert (entry.title, entry.cost, entry.place) == ("Gentle", "reads gradients", 5)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("place: 5", "price: 5", "price: "),
        ("title: Gentle\n", "", "title: "),
        ("taylor_vector", "taylor_victor", "did you mean 'taylor_vector'"),
        ("{method: bias}", "{methods: bias}", "recovery.methods"),
        ("recovery: {method: bias}", "recovered: {method: bias}", "recovered"),
        ("score: taylor_vector", "ratio: 0.5", "ffn is among what a preset leaves alone"),
        ("ffn: {score: taylor_vector}", "seed: 3", "seed is among what a preset leaves alone"),
        ("settings:", "settings", "not valid YAML"),
        (PRESET, "", "the whole file"),
    ],
)
def test_a_preset_that_is_wrong_is_one_sentence(drop_in, before, after, reason):
    assert before in PRESET
    where = drop_in(registries.PRESETS, "gentle.yaml", PRESET.replace(before, after))
    with pytest.raises(BrokenExtension) as caught:
        registries.PRESETS.names()
    message = str(caught.value)
    assert str(where) in message and reason in message and "\n" not in message
    where.write_text(PRESET)
    assert "gentle" in registries.PRESETS


EXPERIMENT = """
like: table2
name: mine
title: Mine
summary: One method at one size.
source: this test
sizes: {a third: 0.33}
methods: [{label: Magnitude, preset: l2, changes: {seed: 4}, paper: ""}]
"""


def test_an_experiment(drop_in, tmp_path, monkeypatch, tokenizer):
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path))
    where = drop_in(registries.EXPERIMENTS, "mine.yaml", EXPERIMENT)
    with pytest.raises(BrokenExtension, match="table2.yaml"):
        registries.EXPERIMENTS.names()  # 'like' names a file beside it
    where.write_text(EXPERIMENT.replace("like: table2\n", "quick: {texts: [sample]}\n"))
    assert registries.EXPERIMENTS.entry("mine").title == "Mine"
    model = families.llama_grouped(vocab_size=200)
    loaded = from_memory(model.eval(), tokenizer)
    request = Request(quick=True, calibration="random", windows=2)
    result = run_experiment(loaded, registries.EXPERIMENTS["mine"], request)
    assert [row["method"] for row in result.rows] == ["Dense", "Magnitude"]
    assert result.rows[1]["kept"] < 0.8 and result.cells[1].recipe["seed"] == 4


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("preset: l2", "preset: l3", "Unknown preset 'l3'"),
        ("seed: 4", "seeds: 4", "seeds"),
        ("sizes: {a third: 0.33}", "sizes: many", "sizes: "),
        ("source: this test", "quick: {windows: few}\nsource: x", "windows: "),
    ],
)
def test_an_experiment_that_is_wrong_is_one_sentence(drop_in, before, after, reason):
    text = EXPERIMENT.replace("like: table2\n", "").replace(before, after)
    where = drop_in(registries.EXPERIMENTS, "mine.yaml", text)
    with pytest.raises(BrokenExtension) as caught:
        registries.EXPERIMENTS.names()
    message = str(caught.value)
    assert str(where) in message and reason in message and "\n" not in message


def test_a_form_of_checkpoint(drop_in, uneven_run, tmp_path):
    drop_in(
        registries.FORMS,
        "listing.py",
        """
        import json
        from pruning.checkpoint.forms import FORMS, Form

        class Listing(Form):
            def write(self, parts, place, options):
                names = sorted(parts.model.state_dict())
                (place / "names.json").write_text(json.dumps(names))
                return ("No weights.",)

            def loading(self, parts):
                return "Read `names.json`."

        FORMS.add("listing", Listing(), TEXTS)
        """,
    )
    run, _ = uneven_run
    folder = save(run, tmp_path / "listed", "listing")
    assert "lm_head.weight" in json.loads((folder / "names.json").read_text())
    card = (folder / "README.md").read_text()
    assert "listing" in card and "Read `names.json`." in card and "No weights." in card
    with pytest.raises(UsageError, match="listing"):
        save(run, tmp_path / "other", "listings")


def test_a_family_of_models(drop_in, tmp_path):
    """The one that the how-to in ``adapters/base.py`` adds in ten lines."""
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    drop_in(
        registries.FAMILIES,
        "starcoder2.py",
        """
        from pruning.adapters.base import FAMILIES, PrunableModule
        from pruning.adapters.families.llama import LlamaAdapter

        class Starcoder2Adapter(LlamaAdapter):
            model_types = ("starcoder2",)

            def ffn(self, block):
                return PrunableModule.of_ffn(block.mlp.c_fc, block.mlp.c_proj)

        FAMILIES.add("starcoder2", Starcoder2Adapter(), TEXTS)
        """,
    )
    config = Starcoder2Config(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = Starcoder2ForCausalLM(config)
    families.randomise(model, 0)
    model.save_pretrained(tmp_path / "dense")
    dense = pruning.load(str(tmp_path / "dense"), device="cpu", dtype="float32")
    cut = {"heads__ratio": 0.3, "ffn__ratio": 0.4}
    run = prune(dense, families.recipe(**cut, **families.PLAIN))
    ids = families.token_ids()
    with families.masked(dense, run.plan):
        expected = families.logits(dense.model, ids)
    torch.testing.assert_close(families.logits(run.pruned.model, ids), expected)
    again = pruning.load(str(save(run, tmp_path / "pruned")), device="cpu")
    assert torch.equal(families.logits(again.model, ids), families.logits(run.pruned.model, ids))


def test_a_head_policy(drop_in):
    """Chosen in a recipe, counted for by a budget, and weighed by ``auto``."""
    drop_in(
        registries.HEAD_POLICIES,
        "last_group.py",
        """
        from dataclasses import replace
        from pruning.planning.head_policies import HEAD_POLICIES, HeadPolicy

        class LastGroup(HeadPolicy):
            loss_curve = "kv_group_expected_loss"

            def select(self, request):
                last = range(request.shape.units - request.shape.units_per_group)
                marks = replace(request.marks, keep=tuple(last))
                return HEAD_POLICIES["kv_group"].select(replace(request, marks=marks))

            def step(self, shape):
                return shape.units_per_group

            def groups_left(self, shape, keep):
                return keep // shape.units_per_group

        HEAD_POLICIES.add("last_group", LastGroup(), TEXTS)
        """,
    )
    measured = synthetic.predictable()
    heads = {"ratio": 0.5, "policy": "last_group"}
    module = make_plan(measured, Recipe.parse({"heads": heads})).blocks[0].attention
    assert module.removed == (3, 4, 5) and module.removed_groups == (1,)
    for allocation in ("uniform", "adaptive", "predicted"):
        budget = {"heads": heads, "budget": {"kept": 0.7}, "allocation": allocation}
        plan = make_plan(measured, Recipe.parse(budget))
        lost = [block.attention.removed_groups for block in plan.blocks]
        assert set(lost) <= {(), (1,)} and any(block.ffn.removed for block in plan.blocks)
    auto = {"heads": {"ratio": 0.5, "policy": "auto"}}
    assert make_plan(measured, Recipe.parse(auto)).blocks[0].attention.removed


def test_another_package_adds_a_criterion_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "my_criteria.py").write_text(
        dedent(
            """
            from pruning.criteria import CRITERIA, Criterion

            CRITERIA.add(
                "theirs", Criterion(lambda statistics, shape, rng: statistics["level2_sq"]), TEXTS
            )
            """
        ).replace("TEXTS", TEXTS)
    )
    info = tmp_path / "my_criteria-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-criteria\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headroom.criteria]\nmine = my_criteria\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = registries.CRITERIA.names()
    registries.CRITERIA.refresh()
    try:
        recipe = Recipe.parse({"ffn": {"ratio": 0.2, "score": "theirs"}})
        plan = make_plan(synthetic.measurement(), recipe)
        assert set(plan.blocks[0].ffn.criteria) == {"theirs"}
    finally:
        forget(registries.CRITERIA, names)


def test_every_kind_is_shown_here():
    """Whoever adds a kind adds its test above."""
    shown = {name for name in globals() if name.startswith("test_a")}
    one = {"families": "family", "criteria": "criterion", "recoveries": "recovery"}
    one |= {"corpora": "corpus", "head_policies": "head_policy"}
    for kind, registry in registries.KINDS.items():
        assert any(f"_{one.get(kind, kind[:-1])}" in name for name in shown), kind
        assert registry.group == f"headroom.{kind}"
        assert all(entry.title and entry.summary and entry.source for entry in registry)


@pytest.mark.parametrize("kind", ["criteria", "allocations", "recoveries", "presets"])
def test_every_method_says_what_it_costs(kind):
    assert all(entry.cost for entry in registries.KINDS[kind])
