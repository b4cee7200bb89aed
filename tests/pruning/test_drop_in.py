"""One file really is one file: dropped into its folder, each kind of extension works."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent

import pytest
import torch

import pruning
from pruning import registries
from pruning.artifacts.recipe import Recipe
from pruning.checkpoint import save
from pruning.data import calibration_windows, evaluation_windows
from pruning.pipeline import prune
from pruning.planning import make_plan
from pruning.utils.errors import UsageError
from tests.helpers import families, synthetic
from tests.helpers.drop_in import TEXTS, forget


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


def test_a_tuning(drop_in, tiny_model):
    """Trains the gain of the last norm alone."""
    drop_in(
        registries.TUNINGS,
        "last_norm.py",
        """
        from pruning.tuning.base import TUNINGS, Tuning

        def prepare(model, adapter, rule, seed):
            from pruning.tuning.training.trainable import leaves

            return leaves(model, ["model.norm.weight"])

        TUNINGS.add("last_norm", Tuning(prepare, 1e-2), cost="end to end", TEXTS)
        """,
    )
    tiny = tiny_model("llama_grouped")
    cut = {"ffn__ratio": 0.3, "tune__keep_better": False}
    recipes = (families.recipe(**cut, tune__method=name) for name in ("none", "last_norm"))
    plain, tuned = (prune(tiny, recipe).pruned.model.state_dict() for recipe in recipes)
    changed = [name for name, value in tuned.items() if not torch.equal(value, plain[name])]
    assert changed == ["model.norm.weight"]


def test_every_kind_is_shown_here():
    """Whoever adds a kind adds its test."""
    here = Path(__file__).parent
    files = [*here.glob("test_drop_in*.py"), here / "experiments" / "test_executors.py"]
    shown = {
        name for file in files for name in re.findall(r"^def (test_a\w+)", file.read_text(), re.M)
    }
    one = {"families": "family", "criteria": "criterion", "recoveries": "recovery"}
    one |= {"corpora": "corpus", "head_policies": "head_policy"}
    for kind, registry in registries.KINDS.items():
        assert any(f"_{one.get(kind, kind[:-1])}" in name for name in shown), kind
        assert registry.group == f"headroom.{kind}"
        assert all(entry.title and entry.summary and entry.source for entry in registry)


@pytest.mark.parametrize("kind", ["criteria", "allocations", "recoveries", "presets"])
def test_every_method_says_what_it_costs(kind):
    assert all(entry.cost for entry in registries.KINDS[kind])
