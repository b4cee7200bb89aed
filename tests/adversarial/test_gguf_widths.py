"""GGUF files that Headroom wrote itself, with a width for each block, read back, and broken."""

from __future__ import annotations

from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch

import pruning
from pruning.checkpoint import FormOptions, save
from pruning.models.loading.outline import outline
from pruning.pipeline import prune
from tests.adversarial import odd_models
from tests.helpers import families

WRITTEN = {
    "widths of their own": ({}, {"heads__threshold": 0.4, "blocks__end": 2}, "f32"),
    "one width": ({}, {"heads__ratio": 0.5}, "f32"),
    "all heads, tied": ({"tie_word_embeddings": True}, {}, "f32"),
    "biases that recovery adds": ({}, {"recovery__method": "bias", "blocks__start": 1}, "f32"),
    "biases of its own": ({"attention_bias": True, "mlp_bias": True}, {}, "f32"),
    "llama3 positions": ({"rope_parameters": odd_models.LLAMA3}, {}, "f32"),
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
    message = odd_models.refusal(rewritten(saved, tmp_path / "m.gguf", change))
    assert all(word in message for word in words), message
    models = own_cache / "models"
    assert not models.exists() or not list(models.iterdir())
