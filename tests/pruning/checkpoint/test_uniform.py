"""The uniform form of every family: an ordinary, smaller checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import pruning
from pruning.checkpoint import parts_of, save
from pruning.checkpoint.rewrite.resize import uniform_model
from pruning.pipeline import prune
from pruning.utils.errors import Unsupported
from tests.helpers import families
from tests.helpers.form_cases import FFN_ONLY, WITHOUT_SWITCH, family_of, ungrouped


@pytest.fixture(params=families.EVERY_FAMILY, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


@pytest.mark.parametrize("method", ["bias", "refit"])
def test_uniform_is_an_ordinary_checkpoint(tiny, tmp_path, method):
    run = prune(tiny, families.recipe(**FFN_ONLY, recovery__method=method))
    ids = families.token_ids()
    reason = None
    if family_of(tiny).startswith("bloom"):
        reason = "BloomConfig has no setting that gives"  # its FFN is always four times as wide
    elif method == "bias" and family_of(tiny) in WITHOUT_SWITCH | {"qwen2_moe_some_blocks"}:
        reason = "Recovery added biases to the ffn .* no setting"
    if reason:
        with pytest.raises(Unsupported, match=reason):
            save(run, tmp_path / "out", "uniform")
        return
    folder = save(run, tmp_path / "out", "uniform")
    loaded = families.plain(folder, like=tiny.model)
    assert torch.equal(families.logits(loaded, ids), families.logits(run.pruned.model, ids))
    config = json.loads((folder / "config.json").read_text())
    assert not {"headroom", "auto_map"} & config.keys()
    assert config["architectures"] == [type(tiny.model).__name__]
    assert not list(folder.glob("*.py"))
    assert "Reproduce" in (folder / "README.md").read_text()
    again = pruning.load(str(folder), device="cpu")  # and so does Headroom
    assert torch.equal(families.logits(again.model, ids), families.logits(loaded, ids))


def test_uniform_with_fewer_heads(tiny_model, tmp_path):
    run = prune(tiny_model("llama_grouped"), families.recipe(heads__ratio=0.34, ffn__ratio=0.4))
    loaded = AutoModelForCausalLM.from_pretrained(save(run, tmp_path / "out", "uniform"))
    config, ids = loaded.config, families.token_ids()
    sizes = (config.num_attention_heads, config.num_key_value_heads, config.intermediate_size)
    assert sizes == (4, 2, 22) and config.head_dim == 10
    assert torch.equal(families.logits(loaded, ids), families.logits(run.pruned.model, ids))


def test_uniform_is_refused_with_the_reason(tiny_model, uneven_run, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Unsupported, match="differ in width .*FFN channels 22 to 37"):
        save(uneven_run[0], out, "uniform")
    three = prune(tiny_model("llama_biased"), families.recipe(heads__ratio=0.25))
    with pytest.raises(Unsupported, match="multiple.* nearest that works is all its 4 heads"):
        save(three, out, "uniform")
    fused = prune(tiny_model("gpt2"), families.recipe(heads__ratio=0.4))
    with pytest.raises(Unsupported, match="GPT2Config refuses 3 heads .*nearest that works is all"):
        save(fused, out, "uniform")
    assert not list(tmp_path.iterdir())  # nothing is left of the attempts


def test_a_smaller_head_count_is_suggested(tmp_path):
    model = families.llama_grouped(hidden_size=48, num_attention_heads=12, num_key_value_heads=6)
    families.randomise(model, 2)
    dense = families.wrap(model.eval().requires_grad_(False), "twelve")
    run = prune(dense, families.recipe(heads__ratio=0.17, heads__policy="kv_group"))
    assert {width.heads for width in run.widths} == {10}
    with pytest.raises(Unsupported, match="nearest that works is all its 12 heads on 6 key/value"):
        save(run, tmp_path / "out", "uniform")
    shorter = prune(dense, families.recipe(heads__ratio=0.4, heads__policy="kv_group"))
    assert {width.heads for width in shorter.widths} in ({8}, {6})
    assert uniform_model(parts_of(shorter))[0].config.num_attention_heads in (8, 6)


def test_an_ungrouped_model_is_uniform_with_a_head_per_query(tiny_model, tmp_path):
    run, ids = ungrouped(tiny_model("llama_grouped")), families.token_ids()
    loaded = AutoModelForCausalLM.from_pretrained(save(run, tmp_path / "m", "uniform"))
    assert loaded.config.num_key_value_heads == loaded.config.num_attention_heads == 2
    assert torch.equal(families.logits(loaded, ids), families.logits(run.pruned.model, ids))
