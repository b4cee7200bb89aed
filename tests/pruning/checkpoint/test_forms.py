"""What all forms of a saved model share: number format, shards, settings, export."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import pruning
from pruning.checkpoint import FORMS, FormOptions, export, parts_of, save
from pruning.checkpoint.rewrite.pad import padded_model
from pruning.pipeline import prune
from pruning.utils.errors import SourceError, UsageError
from tests.helpers import families
from tests.helpers.form_cases import FFN_ONLY, UNEVEN, close


def test_the_forms_are_described():
    assert FORMS.names() == ["compact", "uniform", "padded", "gguf"]
    assert all(entry.title and entry.summary and entry.source for entry in FORMS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", families.EVERY_FAMILY)
def test_half_precision_of_every_family(family, tiny_model, tmp_path, dtype):
    """Bit for bit in each form, as the same number format."""
    dense, ids = tiny_model(family, 3, dtype), families.token_ids()
    uneven = prune(dense, families.recipe(**UNEVEN))
    alike = prune(dense, families.recipe(**FFN_ONLY))
    expected = {
        "compact": uneven.pruned.model,
        "padded": padded_model(parts_of(uneven))[0],
        "uniform": alike.pruned.model,
    }
    if family.startswith("bloom"):
        del expected["uniform"]  # refused, see above
    for form, model in expected.items():
        folder = save(alike if form == "uniform" else uneven, tmp_path / form, form)
        loaded = pruning.load(str(folder), device="cpu")
        logits = families.logits(loaded.model, ids)
        assert loaded.dtype == str(dtype).removeprefix("torch."), form
        assert {p.dtype for p in loaded.model.parameters()} == {dtype}, form
        assert logits.isfinite().all(), form
        assert torch.equal(logits, families.logits(model, ids)), form


def test_half_precision_and_generation_settings_are_kept(model_folder, tmp_path):
    dense = pruning.load(str(model_folder), dtype="bfloat16", device="cpu")
    dense.tokenizer.chat_template = "{{ messages }}"
    run = prune(dense, families.recipe(**FFN_ONLY))
    run.pruned.model.generation_config.max_length = 33
    for form in ("compact", "padded", "uniform"):
        folder = save(run, tmp_path / form, form)
        loaded = pruning.load(str(folder), device="cpu")
        assert loaded.dtype == "bfloat16", form
        assert loaded.model.generation_config.max_length == 33, form
        assert loaded.tokenizer.chat_template == "{{ messages }}", form


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("form", ["compact", "padded", "uniform"])
def test_shards_of_a_model_with_and_without_tied_embeddings(form, tied, tmp_path):
    model = families.llama_grouped(tie_word_embeddings=tied)
    families.randomise(model, 4)
    model.eval().requires_grad_(False).tie_weights()
    run = prune(families.wrap(model, f"tied-{tied}"), families.recipe(**FFN_ONLY))
    save(run, tmp_path / "m", form, options=FormOptions(shard_size="20KB"))
    shards = sorted((tmp_path / "m").glob("model-*.safetensors"))
    assert len(shards) > 2 and not (tmp_path / "m" / "model.safetensors").exists()
    assert "lm_head.weight" not in stored_names(shards) or not tied
    again, ids = pruning.load(str(tmp_path / "m"), device="cpu").model, families.token_ids()
    assert close(families.logits(again, ids), families.logits(run.pruned.model, ids))
    weights = again.get_output_embeddings().weight, again.get_input_embeddings().weight
    assert (weights[0] is weights[1]) is tied
    shards[1].write_bytes(shards[1].read_bytes()[:-50])
    with pytest.raises(SourceError) as refused:
        pruning.load(str(tmp_path / "m"), device="cpu")
    assert "\n" not in str(refused.value)


def test_readers_older_than_transformers_5_find_positions_and_tokenizer(tokenizer, tmp_path):
    """They know neither ``rope_parameters`` nor the tokenizer class that transformers 5 names."""
    rope = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
    model = families.llama_grouped(rope_parameters=rope, vocab_size=200)
    families.randomise(model, 4)
    dense = families.wrap(model.eval().requires_grad_(False), "stretched")
    run = prune(replace(dense, tokenizer=tokenizer), families.recipe(**FFN_ONLY))
    for form in ("compact", "uniform", "padded"):
        folder, ids = save(run, tmp_path / form, form), families.token_ids()
        config = json.loads((folder / "config.json").read_text())
        assert config["rope_theta"] == 500.0 and config["rope_parameters"] == rope
        assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
        again = pruning.load(str(folder), device="cpu")
        assert again.model.config.rope_parameters == rope
        assert again.tokenizer("the water").input_ids == tokenizer("the water").input_ids
        assert close(families.logits(again.model, ids), families.logits(run.pruned.model, ids))


def stored_names(shards):
    names = set()
    for shard in shards:
        with safe_open(shard, "pt") as file:
            names |= set(file.keys())
    return names


def test_export_writes_the_other_forms_of_a_saved_folder(uneven_run, tmp_path):
    run, folder = uneven_run
    ids = families.token_ids()
    remarks = export(folder, tmp_path / "padded", "padded")
    assert "attention_bias" in remarks[0] and "mlp_bias" in remarks[1]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "padded")
    direct, _ = padded_model(parts_of(run))
    assert torch.equal(families.logits(loaded, ids), families.logits(direct, ids))
    export(folder, tmp_path / "again", "compact")
    for name in ("recipe.yaml", "plan.json", "report.json", "config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    with pytest.raises(UsageError, match="another form"):
        export(tmp_path / "padded", tmp_path / "x", "gguf")
    with pytest.raises(SourceError, match="recipe.yaml"):
        export(tmp_path, tmp_path / "x", "padded")
    with pytest.raises(UsageError, match="choose one of: compact"):
        export(folder, tmp_path / "x", "zip")
