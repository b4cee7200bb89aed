"""What single families need beyond the conformance that all of them share."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.gemma2.modeling_gemma2 import Gemma2PreTrainedModel

import pruning
from pruning.adapters import adapter_for
from pruning.adapters.families.phi3 import OwnHeads
from pruning.measure.windows import recovery_windows
from pruning.models.execution.blockwise import attention_implementation
from pruning.pipeline import prune
from pruning.utils.errors import SourceError, Unsupported
from tests.helpers import families

NORMED = {"gemma2", "gemma3", "olmo2", "opt_norm_after", "bloom_norm_residual"}
CUT = {"heads__ratio": 0.4, "ffn__ratio": 0.4}


@pytest.mark.parametrize("family", families.EVERY_FAMILY)
def test_which_families_have_a_norm_after_their_modules(tiny_model, family):
    tiny = tiny_model(family)
    for block in tiny.adapter.blocks(tiny.model):
        kinds = ("attention", "ffn")
        normed = {tiny.adapter.module(block, kind).normed for kind in kinds}
        assert normed == {family in NORMED}


@pytest.mark.parametrize("family", sorted(NORMED))
def test_a_module_before_a_norm_is_fitted_to_its_dense_output(tiny_model, family):
    """Also in the last block, where the stream has drifted: the drift is not part of the target."""
    tiny = tiny_model(family)
    run = prune(tiny, families.recipe(**CUT, calibration__samples=20, recovery__damping=0.1))
    event, ids = run.events[-1], recovery_windows(tiny, run.recipe).ids
    assert (event.block, event.kind) == (families.BLOCKS - 1, "ffn")
    outputs = []
    for loaded in (tiny, run.pruned):
        out_proj = loaded.adapter.ffn(loaded.adapter.blocks(loaded.model)[-1]).out_proj
        with families.seen({"out_proj": out_proj}) as found:
            families.logits(loaded.model, ids)
        outputs.append(found["out_proj"][1].double())
    dense, fitted = outputs
    error = (fitted - dense).square().sum() / dense.square().sum()
    assert event.error_after == pytest.approx(error.item(), rel=1e-3)


@pytest.mark.parametrize("family", ["bloom", "falcon_alibi"])
def test_position_slopes_that_are_missing_on_disk_are_noticed(tiny_model, tmp_path, family):
    run = prune(tiny_model(family), families.recipe(**CUT))
    folder = pruning.save(run, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("kept_heads"))
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match="kept_heads"):
        pruning.load(str(folder), device="cpu")


def test_weights_stored_without_the_backbones_prefix_survive_a_round_trip(tiny_model, tmp_path):
    """The hub's GPT-2 is stored that way; the pruned model is saved under its own names."""
    tiny_model("gpt2").model.transformer.save_pretrained(tmp_path / "bare")
    dense = pruning.load(str(tmp_path / "bare"), device="cpu")
    run = prune(dense, families.recipe(**CUT))
    again = pruning.load(str(pruning.save(run, tmp_path / "pruned")), device="cpu")
    ids = families.token_ids()
    expected = families.logits(run.pruned.model, ids)
    assert families.logits(again.model, ids).equal(expected)


def test_a_phi3_block_shares_all_of_the_config_but_its_heads(tiny_model):
    config = tiny_model("phi3").model.config
    view = copy.deepcopy(OwnHeads.view(OwnHeads.view(config, 4), 3))
    assert view.num_attention_heads == 3
    assert view.hidden_size == config.hidden_size
    run = prune(tiny_model("phi3"), families.recipe(**CUT))
    attention = run.pruned.model.model.layers[0].self_attn
    with attention_implementation(run.pruned.model, "eager"):
        assert attention.config._attn_implementation == "eager"
    assert attention.config.num_attention_heads < config.num_attention_heads == 6


@pytest.mark.parametrize("where", ["whole", "disk"])
def test_gemma2_keeps_its_soft_cap(tiny_model, tmp_path, monkeypatch, where):
    """transformers 5.17 chooses a kernel that leaves it out."""
    tiny, ids = tiny_model("gemma2"), families.token_ids()
    tiny.model.save_pretrained(tmp_path)
    expected = families.logits(tiny.model, ids)
    with attention_implementation(tiny.model, "eager"), monkeypatch.context() as patch:
        patch.setattr(tiny.model.config, "attn_logit_softcapping", None)
        for block in tiny.model.model.layers:
            patch.setattr(block.self_attn, "attn_logit_softcapping", None)
        assert (families.logits(tiny.model, ids) - expected).abs().max() > 1e-4
    monkeypatch.setattr(Gemma2PreTrainedModel, "_supports_sdpa", True)
    again = pruning.load(str(tmp_path), device="cpu", placement=where)
    assert again.model.config._attn_implementation == "eager"
    torch.testing.assert_close(families.logits(again.model, ids), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "change", "word"),
    [
        ("gemma3", {"use_bidirectional_attention": True}, "bidirectional"),
        ("bloom", {"slow_but_exact": True, "pretraining_tp": 2}, "slow_but_exact"),
    ],
)
def test_variants_that_cannot_be_pruned_are_refused(tiny_model, family, change, word):
    config = copy.deepcopy(tiny_model(family).model.config)
    config.update(change)
    with pytest.raises(Unsupported, match=word):
        adapter_for(config)


def test_a_model_without_positions_still_has_a_longest_text(tiny_model):
    tiny = tiny_model("bloom")
    assert tiny.adapter.model_shape(tiny.model).max_positions == 2048
    config = copy.deepcopy(tiny.model.config)
    config.seq_length = 512
    assert tiny.adapter.max_positions(config) == 512
