"""Odd model folders: the same numbers as plain transformers, or one sentence that names what is
wrong, in every placement."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import pruning
from pruning.checkpoint import FormOptions, export, save
from pruning.pipeline import prune
from pruning.utils.errors import HeadroomError, UsageError
from tests.adversarial import odd_models
from tests.adversarial.odd_models import WEIGHTS, changed, ids, llama, plain_logits
from tests.helpers import families
from tests.helpers.tiny_configs import BLOCKS

PLACES = ("whole", "memory", "disk")
UP = "model.layers.1.mlp.up_proj.weight"


def refusal(folder, **options):
    with pytest.raises(HeadroomError) as caught:
        pruning.load(str(folder), **{"device": "cpu", **options})
    message = str(caught.value)
    assert "\n" not in message and len(message.replace(str(folder.parent), "")) <= 300, message
    return message


def config(**values):
    return lambda _weights, settings: settings.update(values)


def weight(name, value):
    return lambda weights, _settings: weights.update({name: value})


def without(name):
    return lambda weights, _settings: weights.pop(name)


def retyped(dtype, **settings):
    """All matrices of the blocks in the numbers of ``dtype``."""

    def change(weights, config):
        for name, value in list(weights.items()):
            if "proj" in name:
                weights[name] = value.to(dtype)
                weights[f"{name}_scale"] = torch.ones(1)
        config.update(settings)

    return change


def spoilt(value):
    def change(weights, _settings):
        weights[UP][3, 4] = value

    return change


REFUSED = {
    "missing": (without(UP), ("lacks", UP)),
    "a missing norm": (without("model.norm.weight"), ("lacks", "model.norm.weight")),
    "a missing head": (without("lm_head.weight"), ("lacks", "lm_head.weight")),
    "a scale": (weight(f"{UP}_scale", torch.ones(1)), (f"{UP}_scale", "no place")),
    "a bias the config denies": (
        weight("model.layers.0.self_attn.q_proj.bias", torch.ones(60)),
        ("q_proj.bias", "no place"),
    ),
    "a block too many": (weight("model.layers.9.mlp.up_proj.weight", torch.ones(2)), ("layers.9",)),
    "a block too few": (config(num_hidden_layers=BLOCKS - 1), (f"layers.{BLOCKS - 1}",)),
    "fp8 and scales": (
        retyped(torch.float8_e4m3fn, quantization_config={"quant_method": "fp8"}),
        ("quantised", "fp8"),
    ),
    "fp8 of ModelOpt, without a word in the config": (
        retyped(torch.float8_e4m3fn),
        ("quantised", "F8_E4M3"),
    ),
    "bitsandbytes": (
        retyped(torch.int8, quantization_config={"quant_method": "bitsandbytes"}),
        ("quantised", "bitsandbytes"),
    ),
    "packed": (
        retyped(torch.uint8, quantization_config={"quant_method": "compressed-tensors"}),
        ("quantised", "compressed-tensors"),
    ),
    "packed, without a word": (weight(UP, torch.ones(37, 24, dtype=torch.int32)), (UP, "I32")),
    "another shape": (weight(UP, torch.ones(36, 48)), (UP, "(36, 48)", "(37, 48)")),
    "rows of the embedding": (config(vocab_size=299), ("shape", "vocab_size")),
    "NaN": (spoilt(torch.nan), ("NaN", UP)),
    "Inf": (spoilt(torch.inf), ("infinite", UP)),
}
"""What is changed in a folder, and the words of the refusal."""


@pytest.mark.parametrize("placement", PLACES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named_in_every_placement(tmp_path, name, placement):
    change, words = REFUSED[name]
    message = refusal(changed(tmp_path / "m", change), placement=placement)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("placement", PLACES)
def test_what_float16_cannot_hold_is_named(tmp_path, placement):
    folder = changed(tmp_path / "m", spoilt(1e6))
    message = refusal(folder, placement=placement, dtype="float16")
    assert UP in message and "bfloat16" in message


def _other_head(weights, settings):
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(0) * 0.5
    settings["tie_word_embeddings"] = True


def _only_the_head(weights, settings):
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    settings["tie_word_embeddings"] = True


def _old_buffers(weights, _settings):
    for block in range(BLOCKS):
        weights[f"model.layers.{block}.self_attn.rotary_emb.inv_freq"] = torch.ones(5)


COMPUTED = {
    "as it is": lambda _weights, _settings: None,
    "its own head, called tied": _other_head,
    "only the head of a tie": _only_the_head,
    "buffers of old releases": _old_buffers,
    "tuples": config(return_dict=False),
    "hidden states": config(output_hidden_states=True),
    "flash attention": config(_attn_implementation="flash_attention_2"),
    "flash attention, newly": config(attn_implementation="flash_attention_2"),
    "attention maps": config(output_attentions=True),
}
"""What is changed in a folder and must not change a number."""

_SWITCHES = ("return_dict", "attn_implementation", "_attn_implementation", "output_attentions")


def _truth(folder):
    """Plain transformers, without the switches that would make it fail."""
    plain = shutil.copytree(folder, folder.with_name("plain"))
    settings = json.loads((plain / "config.json").read_text())
    for name in _SWITCHES:
        settings.pop(name, None)
    (plain / "config.json").write_text(json.dumps(settings))
    return plain_logits(plain)


@pytest.mark.parametrize("placement", PLACES)
@pytest.mark.parametrize("name", COMPUTED)
def test_the_numbers_are_those_of_plain_transformers(tmp_path, name, placement):
    folder = changed(tmp_path / "m", COMPUTED[name])
    loaded = pruning.load(str(folder), device="cpu", placement=placement)
    assert torch.equal(families.logits(loaded.model, ids()), _truth(folder))


@pytest.mark.parametrize("placement", PLACES)
@pytest.mark.parametrize("name", ["its own head, called tied", "attention maps", "tuples"])
def test_what_is_saved_is_what_was_evaluated(tmp_path, name, placement):
    """In every form, by Headroom in every placement and by plain transformers."""
    folder = changed(tmp_path / "m", COMPUTED[name])
    loaded = pruning.load(str(folder), device="cpu", placement=placement)
    run = prune(loaded, families.recipe(ffn__ratio=0.4, recovery__method="none"))
    wanted = families.logits(run.pruned.model, ids())
    compact = save(run, tmp_path / "compact")
    for place in PLACES:
        again = pruning.load(str(compact), device="cpu", placement=place)
        assert torch.equal(families.logits(again.model, ids()), wanted), place
    for form in ("uniform", "padded"):
        save(run, tmp_path / form, form)
        export(compact, tmp_path / f"{form}-later", form)
        for made in (form, f"{form}-later"):
            assert torch.allclose(plain_logits(tmp_path / made), wanted, rtol=0, atol=1e-4), made
    save(run, tmp_path / "m.gguf", "gguf", options=FormOptions(gguf_type="f32"))
    import gguf

    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert "output.weight" in names


def test_the_index_and_one_file(tmp_path):
    """A folder with both is read as transformers reads it, in every placement."""
    folder = changed(tmp_path / "m", COMPUTED["as it is"])
    (folder / "old.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
    weights = load_file(folder / WEIGHTS)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "old.safetensors")}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    save_file({n: 2 * v for n, v in weights.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    wanted = plain_logits(folder)
    for placement in PLACES:
        loaded = pruning.load(str(folder), device="cpu", placement=placement)
        assert torch.equal(families.logits(loaded.model, ids()), wanted)


@pytest.mark.parametrize("placement", PLACES)
def test_a_missing_or_foreign_shard_is_named(tmp_path, placement):
    folder = tmp_path / "m"
    llama().save_pretrained(folder, max_shard_size="50KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    away = shard.rename(tmp_path / "outside.safetensors")
    message = refusal(folder, placement=placement)
    assert f"{shard.name} is missing" in message
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(index.read_text().replace(shard.name, f"../{away.name}"))
    assert "outside its folder" in refusal(folder, placement=placement)


def test_a_tokenizer_larger_than_the_embedding(tmp_path):
    folder = tmp_path / "m"
    families.build("llama_grouped").save_pretrained(folder)
    odd_models.tokenizer().save_pretrained(folder)
    message = refusal(folder)
    assert "300 tokens" in message and "rows" in message


@pytest.mark.parametrize("source", ["folder", "demo", "m.gguf"])
def test_only_the_hub_has_revisions(tmp_path, source):
    place = source if source == "demo" else tmp_path / source
    if source == "folder":
        place.mkdir()
    with pytest.raises(UsageError, match="revision"):
        pruning.load(str(place), revision="main")


def test_a_linked_folder_is_written_through(tmp_path):
    run = prune(families.loaded("llama_grouped"), families.recipe(ffn__ratio=0.4))
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    save(run, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "config.json").is_file()
