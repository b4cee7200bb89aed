"""Where models come from, and every refusal in one sentence."""

from __future__ import annotations

import json
import shutil

import pytest
import requests
import torch
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file
from transformers import BertConfig, T5Config

import pruning
from pruning.models.loading.memory_estimate import estimate
from pruning.utils.errors import SourceError, Unsupported, UsageError
from tests.helpers import families


def _refused(kind, source, *words, **options):
    with pytest.raises(kind) as caught:
        pruning.load(str(source), **{"device": "cpu", **options})
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.fixture
def copy(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "copy")


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_a_folder_loads_in_any_dtype(tiny_model, tmp_path, family, dtype):
    model = tiny_model(family).model
    model.save_pretrained(tmp_path / "model")
    loaded = pruning.load(str(tmp_path / "model"), dtype=dtype, device="cpu")
    assert loaded.dtype == ("float32" if dtype == "auto" else dtype)
    assert not any(p.requires_grad for p in loaded.model.parameters())
    if dtype != "bfloat16":
        ids = families.token_ids()
        assert torch.equal(families.logits(loaded.model, ids), families.logits(model, ids))


def test_a_folder_with_and_without_a_tokenizer(model_folder, tiny_model, tmp_path):
    with_one = pruning.load(str(model_folder), device="cpu")
    assert len(with_one.tokenizer) == 200
    tiny_model("llama_grouped").model.save_pretrained(tmp_path / "bare")
    assert pruning.load(str(tmp_path / "bare"), device="cpu").tokenizer is None


@pytest.mark.parametrize("config", [T5Config(num_layers=1), BertConfig()])
def test_another_architecture_is_refused_by_name(tmp_path, config):
    config.save_pretrained(tmp_path)
    _refused(Unsupported, tmp_path, config.model_type, "gpt2", "llama")


def test_a_variant_with_cross_attention_is_refused(tmp_path):
    config = families.gpt2().config
    config.add_cross_attention = True
    config.save_pretrained(tmp_path)
    _refused(Unsupported, tmp_path, "cross-attention")


def test_folders_that_hold_no_model(tmp_path, copy):
    _refused(SourceError, tmp_path, "no config.json")
    _refused(SourceError, tmp_path / "absent", "check the spelling")
    _refused(SourceError, copy / "config.json", "check the spelling")
    (copy / "config.json").write_text("{")
    _refused(SourceError, copy)


def test_nothing_is_refused_as_wrong_use():
    _refused(UsageError, " ", "No model is named")


def test_a_damaged_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    _refused(SourceError, path, "cannot be read")
    path.write_bytes(b"GGML and more")
    _refused(SourceError, path, "not a GGUF file")
    path.write_bytes(b"GGUF" + bytes(40))
    _refused((SourceError, Unsupported), path, "model.gguf")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int8"}, ("int8", "bfloat16")),
        ({"device": "tpu"}, ("tpu", "cpu")),
        ({"device": "cuda:99"}, ("cuda",)),
    ],
)
def test_unknown_dtype_and_device(model_folder, options, words):
    _refused(UsageError, model_folder, *words, **options)


def test_pickled_weights_are_never_read(copy):
    (copy / "model.safetensors").unlink()
    torch.save({"anything": torch.zeros(1)}, copy / "pytorch_model.bin")
    _refused(SourceError, copy, "safetensors")


def test_code_of_the_models_author_is_never_run(copy):
    """A custom class is asked for in the config; the folder's code must not be imported."""
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}
    (copy / "config.json").write_text(json.dumps(config))
    trap = copy / "was-run"
    (copy / "evil.py").write_text(f"open({str(trap)!r}, 'w').close()\n")
    try:
        pruning.load(str(copy), device="cpu")
    except (SourceError, Unsupported) as error:
        assert "\n" not in str(error)
    assert not trap.exists()


def test_damaged_weights(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    _refused(SourceError, copy)


def test_missing_weights_are_not_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    _refused(SourceError, copy, "model.layers.1.mlp.up_proj.weight")


def _http(kind):
    response = requests.Response()
    response.status_code = 404
    try:
        return kind("Not found\nRequest ID: 1", response=response)
    except TypeError:
        return kind("Not found\nRequest ID: 1")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (hub.GatedRepoError, "licence"),
        (hub.RepositoryNotFoundError, "no such model"),
        (hub.RevisionNotFoundError, "revision"),
        (hub.LocalEntryNotFoundError, "cannot be reached"),
        (hub.OfflineModeIsEnabled, "cannot be reached"),
        (ConnectionError, "cannot be reached"),
    ],
)
def test_hub_failures_are_one_sentence(monkeypatch, kind, word):
    import huggingface_hub

    def fail(*_args, **_kwargs):
        raise _http(kind) if kind is not ConnectionError else kind("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    _refused(SourceError, "someone/some-model", "someone/some-model", word)


def test_identity_follows_the_files(copy):
    first = pruning.load(str(copy), device="cpu").identity
    assert pruning.load(str(copy), device="cpu").identity == first
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert pruning.load(str(copy), device="cpu").identity != first


def test_the_estimate_counts_the_parameters_exactly(model_folder):
    found = estimate(str(model_folder), dtype="bfloat16", device="cpu")
    model = pruning.load(str(model_folder), device="cpu").model
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.weight_bytes == 2 * found.parameters
    assert found.working_bytes > 0 and found.free_bytes > 0
    assert "bfloat16" in found.sentence() and "\n" not in found.sentence()


def test_a_folder_without_a_tokenizer_gets_none(tmp_path):
    """GPT-2's class would make an empty one, whose only token all windows would consist of."""
    for family in ("gpt2", "llama_grouped"):
        families.build(family).save_pretrained(tmp_path / family)
        assert pruning.load(str(tmp_path / family), device="cpu").tokenizer is None
