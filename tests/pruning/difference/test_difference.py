"""Two models compared: matched by their plans, measured against plain tensors and transformers."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace

import pytest
import torch

from pruning.checkpoint import save
from pruning.cli.main import main
from pruning.difference.compare import Passage, Version, compare_models, compare_places
from pruning.difference.html import to_html
from pruning.difference.matching import AS_THEY_ARE, UNMATCHED
from pruning.models.execution import offload
from pruning.pipeline import prune
from pruning.utils.errors import HeadroomError, UsageError
from tests.helpers import families, hand_plans
from tests.helpers.form_cases import ungrouped


def cut(tiny, plan):
    """``tiny`` cut by ``plan``, nothing repaired."""
    return prune(tiny, families.recipe(**families.PLAIN), plan=plan)


def versions(run):
    return Version("dense", run.dense), Version("pruned", run.pruned, run.plan)


def moved(found):
    """What changed at all, by name."""
    return {t.name: t.change for t in found.tensors if t.change}


def check_unmoved(found):
    """Every tensor that both have was matched, and nothing of it changed."""
    assert not moved(found)
    for tensor in found.tensors:
        if tensor.first_shape and tensor.second_shape:
            assert tensor.compared == tensor.elements[1], tensor.name


@pytest.mark.parametrize("family", families.EVERY_FAMILY)
def test_what_a_plain_cut_keeps_has_not_changed(tiny_model, family):
    tiny = tiny_model(family)
    run = cut(tiny, hand_plans.uneven_plan(tiny))
    found = compare_models(*versions(run))
    check_unmoved(found)
    assert {t.name for t in found.tensors} == dict(tiny.model.named_parameters()).keys()
    assert found.kept == pytest.approx(run.report.after.parameters / run.report.before.parameters)
    for block, width, before in zip(found.blocks, run.widths, run.plan.shape.blocks, strict=True):
        assert block.heads == (before.attention.units, width.heads)
        assert block.channels == (before.ffn.units, width.channels)
        assert block.kept <= 1.0 and not block.ffn_change


@pytest.mark.parametrize("family", ["llama_grouped", "gpt2"])
def test_changes_are_those_of_the_plain_tensors(tiny_model, family):
    tiny = tiny_model(family)
    plan = hand_plans.uneven_plan(tiny)
    run = cut(tiny, plan)
    before, after = tiny.model.state_dict(), run.pruned.model.state_dict()
    up, down = {
        "llama_grouped": (
            "model.layers.{}.mlp.up_proj.weight",
            "model.layers.{}.mlp.down_proj.weight",
        ),
        "gpt2": ("transformer.h.{}.mlp.c_fc.weight", "transformer.h.{}.mlp.c_proj.weight"),
    }[family]
    generator = torch.Generator().manual_seed(1)
    for name in (up, down):
        for block in range(families.BLOCKS):
            tensor = after[name.format(block)]
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    found = {t.name: t for t in compare_models(*versions(run)).tensors}
    for block in range(families.BLOCKS):
        kept = list(plan.blocks[block].ffn.kept)
        for name, rows in ((up, family != "gpt2"), (down, family == "gpt2")):
            name = name.format(block)
            was = before[name][kept] if rows else before[name][:, kept]
            change = (after[name] - was).norm() / was.norm()
            assert found[name].change == pytest.approx(change.item(), rel=1e-5)
            assert found[name].compared == was.numel()
    assert len([t for t in found.values() if t.change]) == 2 * families.BLOCKS


def test_two_runs_are_compared_by_what_both_keep(tiny_model):
    tiny = tiny_model("llama_grouped")
    shape = tiny.adapter.model_shape(tiny.model)
    first = cut(tiny, hand_plans.plan_by_hand(shape, {1: (0, 4)}, {0: (1, 2, 3), 2: (0,)}))
    second = cut(tiny, hand_plans.plan_by_hand(shape, {1: (2, 4)}, {0: (2, 3, 4, 5)}))
    found = compare_models(versions(first)[1], versions(second)[1])
    assert not moved(found) and found.matching.startswith("By the plans of both")
    by_name = {t.name: t for t in found.tensors}
    channels = by_name["model.layers.0.mlp.up_proj.weight"]
    assert channels.compared == (37 - 5) * 48 and channels.elements == (34 * 48, 33 * 48)
    heads = by_name["model.layers.1.self_attn.q_proj.weight"]
    assert heads.compared == 3 * 10 * 48
    assert by_name["model.layers.1.self_attn.o_proj.weight"].compared == 3 * 10 * 48
    assert found.blocks[1].heads == (4, 4)


def test_ungrouped_heads_are_compared_with_the_group_they_came_from(tiny_model):
    run = ungrouped(tiny_model("llama_grouped"), **families.PLAIN)
    found = compare_models(*versions(run))
    assert not moved(found)
    keys = [t for t in found.tensors if t.name.endswith("k_proj.weight")]
    assert all(t.compared == 2 * 10 * 48 for t in keys)
    other = cut(run.dense, hand_plans.uneven_plan(run.dense))
    assert not moved(compare_models(versions(run)[1], versions(other)[1]))


@pytest.mark.parametrize("family", ["llama_grouped", "stablelm", "mixtral"])
def test_padding_is_no_difference(tiny_model, tmp_path, family):
    run = cut(tiny_model(family), hand_plans.uneven_plan(tiny_model(family)))
    save(run, tmp_path / "padded", "padded")
    save(run, tmp_path / "compact", "compact")
    found = compare_places(str(tmp_path / "compact"), str(tmp_path / "padded"))
    check_unmoved(found)
    assert found.kept == 1.0
    padded = versions(run)[0], replace(versions(run)[1], name="padded")
    assert [b.heads[1] for b in found.blocks] == [
        b.heads[1] for b in compare_models(*padded).blocks
    ]


def test_what_was_pruned_twice_is_compared_with_each_step(tiny_model):
    once = cut(tiny_model("llama_grouped"), hand_plans.uneven_plan(tiny_model("llama_grouped")))
    shape = once.pruned.adapter.model_shape(once.pruned.model)
    twice = cut(once.pruned, hand_plans.plan_by_hand(shape, {}, {0: (0, 1)}))
    found = compare_models(versions(once)[1], versions(twice)[1])
    check_unmoved(found)
    assert found.matching == "By the plan that made pruned."
    lost = compare_models(versions(once)[0], versions(twice)[1])
    assert lost.matching == UNMATCHED and lost.remarks == (UNMATCHED,)
    cut_ones = [t for t in lost.tensors if t.first_shape != t.second_shape]
    assert cut_ones and not any(t.compared for t in cut_ones) and not moved(lost)


def test_models_of_one_shape_need_no_plan(tiny_model):
    pair = [Version(str(seed), tiny_model("gpt2", seed)) for seed in (0, 1)]
    found = compare_models(*pair)
    assert found.matching == AS_THEY_ARE and found.kept == 1.0
    before, after = (dict(side.loaded.model.named_parameters()) for side in pair)
    for tensor in found.tensors:
        was = before[tensor.name]
        wanted = ((after[tensor.name] - was).norm() / was.norm()).item()
        assert tensor.change == pytest.approx(wanted, rel=1e-5)
    squares = [sum(x.square().sum() for x in side.values()).item() for side in (before,)]
    assert sum(t.squared_size for t in found.tensors) == pytest.approx(squares[0], rel=1e-5)


def test_a_bias_that_recovery_added_is_there_alone(tiny_model):
    tiny = tiny_model("llama_grouped")
    run = prune(tiny, families.recipe(ffn__ratio=0.3, recovery__method="bias"))
    found = compare_models(*versions(run))
    added = [t for t in found.tensors if t.first_shape is None]
    assert {t.name.rpartition(".")[2] for t in added} == {"bias"} and not any(
        t.change or t.kept for t in added
    )


def test_numbers_that_are_not_finite_are_named(tiny_model):
    tiny = tiny_model("gpt2")
    run = cut(tiny, hand_plans.uneven_plan(tiny))
    run.pruned.model.transformer.h[1].mlp.c_proj.weight[0, 0] = float("nan")
    with pytest.raises(HeadroomError, match="h.1.mlp.c_proj.weight holds numbers that are not"):
        compare_models(*versions(run))


@pytest.fixture(scope="module")
def folders(model_folder, tmp_path_factory):
    """A dense folder, and what pruning made of it."""
    from pruning.models.loading import load

    recipe = families.recipe(calibration__source="sample", ffn__ratio=0.3, heads__ratio=0.34)
    run = prune(load(str(model_folder)), recipe)
    return model_folder, save(run, tmp_path_factory.mktemp("pruned") / "model"), run


def test_outputs_are_those_of_plain_transformers(folders):
    from pruning.data.windows import evaluation_windows

    dense, _, run = folders
    passage = Passage("sample", windows=3, seq_len=16)
    found = compare_models(*versions(run), passage).outputs
    ids = evaluation_windows("sample", run.dense.model, run.dense.tokenizer, 16, 3).ids
    sides = [
        model(input_ids=ids, output_hidden_states=True, use_cache=False)
        for model in (families.plain(dense, run.dense.model), run.pruned.model)
    ]
    streams = [side.hidden_states for side in sides]
    assert found.tokens == ids.numel() and len(found.blocks) == families.BLOCKS
    for index in range(families.BLOCKS - 1):  # the last one comes normed
        one, other = (stream[index + 1] for stream in streams)
        error = ((other - one).norm(dim=-1) / one.norm(dim=-1)).mean().item()
        cosine = torch.nn.functional.cosine_similarity(one, other, dim=-1).mean().item()
        assert found.blocks[index].error == pytest.approx(error, rel=1e-4)
        assert found.blocks[index].cosine == pytest.approx(cosine, rel=1e-4)
    logs = [side.logits.log_softmax(-1) for side in sides]
    wanted = torch.nn.functional.kl_div(logs[1], logs[0], log_target=True, reduction="none").sum(-1)
    assert found.divergence == pytest.approx(wanted.mean().item(), rel=1e-4)
    same = (logs[0].argmax(-1) == logs[1].argmax(-1)).float().mean().item()
    assert found.agreement == pytest.approx(same)


def test_folders_are_read_one_block_at_a_time(folders, monkeypatch):
    dense, pruned, run = folders
    passage = Passage("sample", windows=2, seq_len=16)
    most = []
    enter = offload.BlockStore._enter

    def counted(store, block):
        enter(store, block)
        most.append(len(store._homes))

    monkeypatch.setattr(offload.BlockStore, "_enter", counted)
    found = compare_places(str(dense), str(pruned), passage)
    assert most and max(most) == 1
    here = compare_models(*versions(run), passage)
    for one, other in zip(found.tensors, here.tensors, strict=True):
        assert replace(one, squared_error=0.0, squared_size=0.0) == replace(
            other, squared_error=0.0, squared_size=0.0
        )
        assert one.change == pytest.approx(other.change, abs=1e-6)
    assert found.outputs.divergence == pytest.approx(here.outputs.divergence, rel=1e-5)
    assert found.outputs.blocks[1].error > 0


def test_models_with_nothing_in_common_are_refused_before_weights_are_read(tiny_model, tmp_path):
    for family in ("gpt2", "llama_grouped"):
        folder = tmp_path / family
        tiny_model(family).model.config.save_pretrained(folder)
    with pytest.raises(UsageError, match="of the family gpt2, and .* of the family llama"):
        compare_places(str(tmp_path / "gpt2"), str(tmp_path / "llama_grouped"))
    tiny = Version("a", tiny_model("gpt2"))
    with pytest.raises(UsageError, match="Text|text|corpus|file"):
        compare_places("demo", "demo", Passage("no-such-text"))
    assert compare_models(tiny, tiny, Passage()).remarks == (
        "The first model has no tokenizer, so outputs were not compared.",
    )


def test_the_page_asks_for_nothing_and_says_everything(folders):
    run = folders[2]
    first, second = versions(run)
    evil = replace(second, name="<script>alert(1)</script>")
    found = compare_models(first, evil, Passage("sample", 1, 16))
    page = to_html(found)
    assert "<script>alert" not in page and "http" not in page.replace("http-equiv", "")
    script = re.search(r"<script>(.*)</script>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert page.count("<tr>") == 2 + len(found.blocks) + len(found.tensors)
    assert found.headline() in page and f"{found.tensors[0].change or 0:.2%}" in page
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["tensor"] for row in rows] == [tensor.name for tensor in found.tensors]
    assert json.loads(found.to_json())["outputs"]["divergence"] == found.outputs.divergence


def test_the_command_line(folders, tmp_path, capsys):
    dense, pruned, run = folders
    files = ["--html", str(tmp_path / "page.html"), "--csv", str(tmp_path / "table.csv")]
    size = ["--seq-len", "16", "--windows", "1"]
    assert main(["diff", str(dense), str(pruned), *size, *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    report = run.report
    assert found["kept"] == pytest.approx(report.after.parameters / report.before.parameters)
    assert found["outputs"]["tokens"] == 16 and len(found["blocks"]) == families.BLOCKS
    assert found["headline"] in (tmp_path / "page.html").read_text()
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + len(found["tensors"])
    assert main(["diff", str(dense), str(pruned), "--text", "none"]) == 0
    shown = capsys.readouterr().out
    assert "6 → 4" in shown and "attention change" in shown and "output" not in shown
    for wrong in (["--seq-len", "1"], ["--html", str(tmp_path)], ["--text", "nothing.txt"]):
        assert main(["diff", str(dense), str(pruned), *wrong]) in (1, 2)
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and len(said) <= 310
