"""Odd GGUF files: computed as they say, or refused in one sentence that names what is wrong."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import pruning
from pruning.models.loading.gguf import converted
from tests.adversarial import odd_models
from tests.helpers import families

LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}


def _factors(rope):
    """What llama.cpp divides the plain frequencies by."""
    model = odd_models.llama(rope_parameters=rope)
    plain = odd_models.llama().model.rotary_emb.inv_freq
    return {"rope_freqs.weight": plain / model.model.rotary_emb.inv_freq}


def _logits(file):
    return families.logits(pruning.load(str(file), device="cpu").model, odd_models.ids())


COMPUTED = {
    "plain": ({}, {}),
    "tied": ({"tie_word_embeddings": True}, {}),
    "other epsilon": ({"rms_norm_eps": 0.25}, {}),
    "other base": ({"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, {}),
    "two parts": ({}, {"parts": 2}),
    "three parts": ({"tie_word_embeddings": True}, {"parts": 3}),
    "llama3 factors": (
        {"rope_parameters": odd_models.LLAMA3},
        {"extra": _factors(odd_models.LLAMA3)},
    ),
    "linear factors": ({"rope_parameters": LINEAR}, {"extra": _factors(LINEAR)}),
    "linear keys": (
        {"rope_parameters": LINEAR},
        {"settings": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}},
    ),
    "old linear key": ({"rope_parameters": LINEAR}, {"settings": {"rope.scale_linear": 4.0}}),
    "yarn keys": (
        {"rope_parameters": YARN},
        {
            "settings": {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 16,
            }
        },
    ),
    "neutral keys": ({}, {"settings": {"rope.scaling.type": "none", "attention.causal": True}}),
}
"""(changes of the model, how it is written), with the same numbers as plain transformers."""


@pytest.mark.parametrize("name", COMPUTED)
def test_what_the_file_says_is_computed(tmp_path, name):
    changes, how = COMPUTED[name]
    model = odd_models.llama(**changes)
    file = odd_models.write_gguf(tmp_path / "m.gguf", model, **how)
    wanted = families.logits(model, odd_models.ids())
    found = _logits(file)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    # what is kept for the next time says it as well, to plain transformers
    assert torch.equal(odd_models.plain_logits(converted(file)), found)


OTHERS = {
    "qwen3": {},
    "gemma2": {
        "attention.sliding_window": 8,
        "attn_logit_softcapping": 20.0,
        "final_logit_softcapping": 10.0,
    },
}
"""Further architectures, with what their headers say beside sizes."""


@pytest.mark.parametrize("kind", OTHERS)
def test_settings_that_the_reader_of_transformers_passes_over(tmp_path, kind):
    """Qwen3's width of heads, Gemma 2's soft caps: not at the defaults of their configs."""
    names = {name.split(".")[-1]: value for name, value in OTHERS[kind].items()}
    sizes = {"hidden_size": 48, "intermediate_size": 37, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300}
    config = AutoConfig.for_model(kind, **sizes, **heads, **names, tie_word_embeddings=True)
    soft = {"attn_implementation": "eager"} if kind == "gemma2" else {}  # 5.17 leaves it to us
    model = AutoModelForCausalLM.from_config(config, **soft).eval().requires_grad_(False)
    families.randomise(model, 1)
    file = odd_models.write_gguf(tmp_path / "m.gguf", model, OTHERS[kind], architecture=kind)
    assert torch.equal(_logits(file), families.logits(model, odd_models.ids()))


REFUSED = {
    "a tensor is missing": ({"drop": "blk.1.ffn_up.weight"}, ("lacks", "layers.1.mlp.up_proj")),
    "the embedding is missing": ({"drop": "token_embd.weight"}, ("lacks", "embed_tokens")),
    "a tensor too many": (
        {"extra": {"blk.0.attn_q_norm.weight": torch.ones(10)}},
        ("blk.0.attn_q_norm.weight", "no place"),
    ),
    "a bias that the reader drops": (
        {"extra": {"blk.0.attn_q.bias": torch.ones(60)}},
        ("blk.0.attn_q.bias", "no place"),
    ),
    "a block too many": (
        {"extra": {"blk.9.ffn_up.weight": torch.ones(37, 48)}},
        ("blk.9.ffn_up.weight",),
    ),
    "factors of no known scaling": (
        {"extra": {"rope_freqs.weight": torch.tensor([1.0, 3.0, 2.0, 5.0, 4.0])}},
        ("factors of its own",),
    ),
    "factors of another width": (
        {"extra": {"rope_freqs.weight": torch.ones(7) * 2}},
        ("another width",),
    ),
    "longrope": ({"settings": {"rope.scaling.type": "longrope"}}, ("longrope",)),
    "yarn without its length": (
        {"settings": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}},
        ("yarn",),
    ),
    "a yarn of its own": (
        {
            "settings": {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 16,
                "rope.scaling.yarn_log_multiplier": 0.1,
            }
        },
        ("yarn_log_multiplier",),
    ),
    "a window": ({"settings": {"attention.sliding_window": 8}}, ("attention.sliding_window",)),
    "soft caps": ({"settings": {"final_logit_softcapping": 30.0}}, ("final_logit_softcapping",)),
    "a scale of logits": ({"settings": {"logit_scale": 0.5}}, ("logit_scale",)),
    "a scale of embeddings": ({"settings": {"embedding_scale": 12.0}}, ("embedding_scale",)),
    "a scale of attention": ({"settings": {"attention.scale": 0.2}}, ("attention.scale",)),
    "experts": ({"settings": {"expert_count": 8}}, ("expert_count",)),
    "a key of tomorrow": ({"settings": {"attention.twist": 1.5}}, ("attention.twist",)),
    "heads of two widths": ({"settings": {"attention.value_length": 12}}, ()),
    "NaN": (
        {"extra": {"blk.2.ffn_down.weight": torch.full((48, 37), torch.nan)}},
        ("NaN", "layers.2.mlp.down_proj"),
    ),
    "another shape": (
        {"extra": {"blk.2.ffn_down.weight": torch.ones(48, 36)}},
        ("layers.2.mlp.down_proj", "shape"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_computed_is_refused_by_name(tmp_path, own_cache, name):
    how, words = REFUSED[name]
    file = odd_models.write_gguf(tmp_path / "m.gguf", odd_models.llama(), **how)
    message = odd_models.refusal(file)
    assert all(word in message for word in words), message
    models = own_cache / "models"
    assert not models.exists() or not list(models.iterdir())


@pytest.mark.parametrize("absent", [1, 2])
def test_a_missing_part_is_named(tmp_path, absent):
    odd_models.write_gguf(tmp_path / "m.gguf", odd_models.llama(), parts=2)
    gone = tmp_path / f"m-{absent:05}-of-00002.gguf"
    gone.unlink()
    (there,) = tmp_path.glob("m-*.gguf")
    assert gone.name in odd_models.refusal(there)


def test_any_part_stands_for_all(tmp_path):
    model = odd_models.llama()
    first = odd_models.write_gguf(tmp_path / "m.gguf", model, parts=2)
    second = first.with_name("m-00002-of-00002.gguf")
    assert converted(second) == converted(first)


def test_a_part_under_another_name_is_refused(tmp_path):
    first = odd_models.write_gguf(tmp_path / "m.gguf", odd_models.llama(), parts=2)
    shutil.copy(first, tmp_path / "alone.gguf")
    assert "part 1 of 2" in odd_models.refusal(tmp_path / "alone.gguf")


def test_the_cache_knows_files_by_their_content(tmp_path):
    """Same name, size and time, other weights."""
    file = odd_models.write_gguf(tmp_path / "m.gguf", odd_models.llama())
    stat = file.stat()
    before = _logits(file)
    other = odd_models.llama()
    other.model.norm.weight.mul_(2)
    odd_models.write_gguf(file, other)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    after = _logits(file)
    assert not torch.allclose(before, after)
    # and the same content under another path is not read twice
    (tmp_path / "elsewhere").mkdir()
    assert converted(shutil.copy(file, tmp_path / "elsewhere" / "m.gguf")) == converted(file)


def test_a_half_conversion_is_not_used(tmp_path):
    file = odd_models.write_gguf(tmp_path / "m.gguf", odd_models.llama())
    before = _logits(file)
    (converted(file) / odd_models.WEIGHTS).unlink()
    assert torch.equal(_logits(file), before)
