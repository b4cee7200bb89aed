"""Odd GGUF files: computed as they say, or refused in one sentence that names what is wrong."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import pruning
from pruning.checkpoint import FormOptions, save
from pruning.models.loading.gguf import converted
from pruning.models.loading.outline import outline
from pruning.pipeline import prune
from pruning.utils.errors import HeadroomError
from tests.adversarial import odd_models
from tests.helpers import families

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


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
    "llama3 factors": ({"rope_parameters": LLAMA3}, {"extra": _factors(LLAMA3)}),
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
    model = (
        AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        .eval()
        .requires_grad_(False)
    )
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


def refusal(file):
    with pytest.raises(HeadroomError) as caught:
        pruning.load(str(file), device="cpu")
    message = str(caught.value)
    assert "\n" not in message and len(message.replace(str(file.parent), "")) <= 300, message
    return message


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_computed_is_refused_by_name(tmp_path, own_cache, name):
    how, words = REFUSED[name]
    file = odd_models.write_gguf(tmp_path / "m.gguf", odd_models.llama(), **how)
    message = refusal(file)
    assert all(word in message for word in words), message
    models = own_cache / "models"
    assert not models.exists() or not list(models.iterdir())


@pytest.mark.parametrize("absent", [1, 2])
def test_a_missing_part_is_named(tmp_path, absent):
    odd_models.write_gguf(tmp_path / "m.gguf", odd_models.llama(), parts=2)
    gone = tmp_path / f"m-{absent:05}-of-00002.gguf"
    gone.unlink()
    (there,) = tmp_path.glob("m-*.gguf")
    assert gone.name in refusal(there)


def test_any_part_stands_for_all(tmp_path):
    model = odd_models.llama()
    first = odd_models.write_gguf(tmp_path / "m.gguf", model, parts=2)
    second = first.with_name("m-00002-of-00002.gguf")
    assert converted(second) == converted(first)


def test_a_part_under_another_name_is_refused(tmp_path):
    first = odd_models.write_gguf(tmp_path / "m.gguf", odd_models.llama(), parts=2)
    shutil.copy(first, tmp_path / "alone.gguf")
    assert "part 1 of 2" in refusal(tmp_path / "alone.gguf")


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


WRITTEN = {
    "widths of their own": ({}, {"heads__threshold": 0.4, "blocks__end": 2}, "f32"),
    "one width": ({}, {"heads__ratio": 0.5}, "f32"),
    "all heads, tied": ({"tie_word_embeddings": True}, {}, "f32"),
    "biases that recovery adds": ({}, {"recovery__method": "bias", "blocks__start": 1}, "f32"),
    "biases of its own": ({"attention_bias": True, "mlp_bias": True}, {}, "f32"),
    "llama3 positions": ({"rope_parameters": LLAMA3}, {}, "f32"),
    "half precision": ({}, {}, "f16"),
    "eight bits": ({}, {}, "q8_0"),
}
"""(changes of the model, of the recipe, number format) of files that Headroom wrote itself."""


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_that_was_written_for_llamacpp_is_read_back(tmp_path, name):
    changes, recipe, kind = WRITTEN[name]
    wide = {"hidden_size": 96, "intermediate_size": 96}  # so that some rows go into q8_0
    loaded = families.wrap(odd_models.llama(**wide, **changes), name)
    run = prune(loaded, families.recipe(ffn__ratio=0.3, **recipe))
    file = tmp_path / "m.gguf"
    save(run, file, "gguf", options=FormOptions(gguf_type=kind))
    again = pruning.load(str(file), device="cpu")
    assert again.shape.blocks == run.pruned.shape.blocks
    wanted = families.logits(run.pruned.model, odd_models.ids())
    apart = (families.logits(again.model, odd_models.ids()) - wanted).abs().max()
    # positions are rebuilt from factors in float32; norms are rounded to float16 like the rest
    limit = {"f32": 1e-5 if "rope_parameters" in changes else 0.0, "f16": 4e-3, "q8_0": 0.1}[kind]
    assert apart <= limit * wanted.abs().max()
    assert outline(str(file)).shape.blocks == again.shape.blocks


def test_a_file_that_was_read_back_is_pruned_and_saved_again(tmp_path):
    """With its tokenizer, in every placement; what is outlined is what is loaded."""
    model = families.wrap(odd_models.llama(), "twice")
    run = prune(replace(model, tokenizer=odd_models.tokenizer()), families.recipe(ffn__ratio=0.3))
    save(run, tmp_path / "once.gguf", "gguf")
    assert outline(str(tmp_path / "once.gguf")).shape.blocks == run.pruned.shape.blocks
    once = pruning.load(str(tmp_path / "once.gguf"), device="cpu")
    assert once.tokenizer("The water cycle").input_ids == (
        run.dense.tokenizer("The water cycle").input_ids
    )
    twice = prune(once, families.recipe(ffn__ratio=0.3, heads__ratio=0.5))
    assert twice.pruned.shape.blocks[0].ffn.units < once.shape.blocks[0].ffn.units
    save(twice, tmp_path / "twice", "compact")
    found = pruning.load(str(tmp_path / "twice"), device="cpu", placement="disk")
    wanted = families.logits(twice.pruned.model, odd_models.ids())
    assert torch.allclose(families.logits(found.model, odd_models.ids()), wanted, atol=1e-5)


def rewritten(source, target, change):
    """``source`` with the keys and tensors that ``change(keys, tensors)`` leaves."""
    reader = gguf.GGUFReader(source)
    keys = {
        field.name: (field.contents(), field.types)
        for field in reader.fields.values()
        if not field.name.startswith("GGUF.") and field.name != "general.architecture"
    }
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    change(keys, tensors)
    writer = gguf.GGUFWriter(target, "deci")
    for name, (value, types) in keys.items():
        writer.add_key_value(name, value, types[0], types[-1] if len(types) > 1 else None)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _set(name, value):
    return lambda keys, tensors: keys.update({name: (value, keys[name][1])})


BROKEN = {
    "a block without attention": (
        _set("deci.attention.head_count", [0, 6, 6]),
        ("without attention", "head_count"),
    ),
    "counts for too few blocks": (_set("deci.feed_forward_length", [26, 26]), ("2 blocks",)),
    "other counts than tensors": (
        _set("deci.attention.head_count", [6, 3, 6]),
        ("block 1", "other shapes"),
    ),
    "another width of heads": (_set("deci.attention.key_length", 5), ()),
    "a tensor is missing": (
        lambda keys, tensors: tensors.pop("blk.1.ffn_up.weight"),
        ("lacks", "layers.1.mlp.up_proj"),
    ),
    "a tensor too many": (
        lambda keys, tensors: tensors.update({"blk.1.ssm_a": np.ones(4, np.float32)}),
        ("blk.1.ssm_a", "no place"),
    ),
    "another shape": (
        lambda keys, tensors: tensors.update({"output_norm.weight": np.ones(4, np.float32)}),
        ("model.norm", "shape"),
    ),
    "no size": (lambda keys, tensors: keys.pop("deci.embedding_length"), ("embedding_length",)),
}
"""What is wrong with a file of blocks of different widths, and words of the refusal."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = prune(families.loaded("llama_grouped"), families.recipe(ffn__ratio=0.3))
    file = tmp_path_factory.mktemp("saved") / "m.gguf"
    save(run, file, "gguf", options=FormOptions(gguf_type="f32"))
    return file


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_of_different_widths_is_refused_by_name(tmp_path, own_cache, saved, name):
    change, words = BROKEN[name]
    message = refusal(rewritten(saved, tmp_path / "m.gguf", change))
    assert all(word in message for word in words), message
    models = own_cache / "models"
    assert not models.exists() or not list(models.iterdir())
