"""Every form of every family: saved, loaded by what it is meant for, equal logits."""

from __future__ import annotations

import json
from dataclasses import replace

import families
import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

import pruning
from pruning.checkpoint import FORMS, Evaluation, FormOptions, export, parts_of, save
from pruning.checkpoint.origin import front_matter
from pruning.checkpoint.padding import padded_model
from pruning.checkpoint.resizing import uniform_model
from pruning.errors import SourceError, Unsupported, UsageError
from pruning.pipeline import prune
from pruning.sources.loaded import LoadedModel

CUT = {"heads__threshold": 0.3, "heads__ratio": 0.2, "ffn__ratio": 0.4}
UNEVEN = {**CUT, "blocks": {"start": 1, "end": 3}}
FFN_ONLY = {"ffn__ratio": 0.4}


@pytest.fixture(params=families.EVERY_FAMILY, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def uneven(tiny_model, tmp_path_factory):
    """A run with other widths in some blocks, and its compact folder; not to be changed."""
    run = prune(tiny_model("llama_grouped"), families.recipe(**UNEVEN, recovery__method="bias"))
    return run, save(run, tmp_path_factory.mktemp("uneven") / "model")


WITHOUT_SWITCH = {
    "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "olmo2", "stablelm", "stablelm_parallel",
    "phi3",
}  # fmt: skip
"""Families whose config cannot give both output layers a bias."""


EXPERTS_AND_HEADS = {"mixtral", "qwen2_moe", "qwen2_moe_some_blocks"}
"""Mixtures whose attention cannot have that bias; recovery gives experts none."""


def _family(tiny):
    return tiny.source.split("-")[0]


def _close(one, other):
    """Equal but for the order of sums."""
    return torch.allclose(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def test_the_forms_are_described():
    assert FORMS.names() == ["compact", "uniform", "padded", "gguf"]
    assert all(entry.title and entry.summary and entry.source for entry in FORMS)


WAYS = [("bias", "auto"), ("full", "auto"), ("refit", "add")]


@pytest.mark.parametrize(("method", "intercept"), WAYS)
def test_padded_is_the_same_model_in_the_original_shape(tiny, tmp_path, method, intercept):
    recipe = families.recipe(**UNEVEN, recovery__method=method, recovery__intercept=intercept)
    run, ids = prune(tiny, recipe), families.token_ids()
    added = method == "bias" or intercept == "add"
    if added and _family(tiny) in WITHOUT_SWITCH | {"gptj", *EXPERTS_AND_HEADS}:
        with pytest.raises(Unsupported, match="Recovery added biases to the .* no setting"):
            save(run, tmp_path / "out", "padded")
        return
    model, _ = padded_model(parts_of(run))
    folder = save(run, tmp_path / "out", "padded")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert type(loaded) is type(tiny.model)
    assert torch.equal(families.logits(loaded, ids), families.logits(model, ids))
    assert _close(families.logits(loaded, ids), families.logits(run.pruned.model, ids))
    old, new = tiny.model.config, AutoConfig.from_pretrained(folder)
    assert new.hidden_size == old.hidden_size and not hasattr(new, "headroom")
    shapes = {name: p.shape for name, p in loaded.named_parameters()}
    dense = {name: p.shape for name, p in tiny.model.named_parameters()}
    assert dense.items() <= shapes.items()
    assert all(name.endswith("bias") for name in shapes.keys() - dense.keys())


def test_padded_without_recovery_keeps_the_original_places(tiny, tmp_path):
    """What stays is where it was, bit for bit; what went is zero."""
    run = prune(tiny, families.recipe(**UNEVEN, recovery__method="none"))
    loaded = AutoModelForCausalLM.from_pretrained(save(run, tmp_path / "out", "padded"))
    dense = dict(tiny.model.named_parameters())
    zeros = 0
    for name, parameter in loaded.named_parameters():
        same = parameter == dense[name]
        assert bool((same | (parameter == 0)).all()), name
        zeros += int((~same).sum())
    before, after = run.report.before.parameters, run.report.after.parameters
    assert zeros == before - after


@pytest.mark.parametrize("method", ["bias", "refit"])
def test_uniform_is_an_ordinary_checkpoint(tiny, tmp_path, method):
    run = prune(tiny, families.recipe(**FFN_ONLY, recovery__method=method))
    ids = families.token_ids()
    reason = None
    if _family(tiny).startswith("bloom"):
        reason = "BloomConfig has no setting that gives"  # its FFN is always four times as wide
    elif method == "bias" and _family(tiny) in WITHOUT_SWITCH | {"qwen2_moe_some_blocks"}:
        reason = "Recovery added biases to the ffn .* no setting"
    if reason:
        with pytest.raises(Unsupported, match=reason):
            save(run, tmp_path / "out", "uniform")
        return
    folder = save(run, tmp_path / "out", "uniform")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
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


def test_uniform_is_refused_with_the_reason(tiny_model, uneven, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Unsupported, match="differ in width .*FFN channels 22 to 37"):
        save(uneven[0], out, "uniform")
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


def test_half_precision_and_generation_settings_are_kept(tiny_model, tokenizer, tmp_path):
    dense = tiny_model("llama_grouped", 2, torch.bfloat16)
    tokenizer.chat_template = "{{ messages }}"
    try:
        dense = LoadedModel(**{**vars(dense), "tokenizer": tokenizer})
        run = prune(dense, families.recipe(**FFN_ONLY))
        run.pruned.model.generation_config.max_length = 33
        for form in ("compact", "padded", "uniform"):
            folder = save(run, tmp_path / form, form)
            loaded = pruning.load(str(folder), device="cpu")
            assert loaded.dtype == "bfloat16", form
            assert loaded.model.generation_config.max_length == 33, form
            assert loaded.tokenizer.chat_template == "{{ messages }}", form
    finally:
        tokenizer.chat_template = None


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
    assert _close(families.logits(again, ids), families.logits(run.pruned.model, ids))
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
        assert _close(families.logits(again.model, ids), families.logits(run.pruned.model, ids))


def stored_names(shards):
    names = set()
    for shard in shards:
        with safe_open(shard, "pt") as file:
            names |= set(file.keys())
    return names


def ungrouped(loaded, **changes):
    """A run in which every query head that is left has its own key/value head."""
    run = prune(
        loaded, families.recipe(heads__ratio=0.67, heads__policy="ungroup", ffn__ratio=0.3,
                                **changes)
    )  # fmt: skip
    assert all(width.heads == width.kv_heads == 2 for width in run.widths)
    return run


@pytest.mark.parametrize("method", ["none", "refit", "full"])
def test_an_ungrouped_model_is_padded_into_its_groups(tiny_model, tmp_path, method):
    """Key/value heads are repeated after any fit of level 1, so they are copies."""
    for family in ("llama_grouped", "qwen2", "phi3"):
        run = ungrouped(tiny_model(family), recovery__method=method)
        loaded = AutoModelForCausalLM.from_pretrained(save(run, tmp_path / family, "padded"))
        ids = families.token_ids()
        assert loaded.config.num_key_value_heads == 2 and loaded.config.num_attention_heads == 6
        assert _close(families.logits(loaded, ids), families.logits(run.pruned.model, ids))


def test_an_ungrouped_model_is_uniform_with_a_head_per_query(tiny_model, tmp_path):
    run, ids = ungrouped(tiny_model("llama_grouped")), families.token_ids()
    loaded = AutoModelForCausalLM.from_pretrained(save(run, tmp_path / "m", "uniform"))
    assert loaded.config.num_key_value_heads == loaded.config.num_attention_heads == 2
    assert torch.equal(families.logits(loaded, ids), families.logits(run.pruned.model, ids))


def crowded(tiny_model):
    """Four heads that share two key/value heads, each with a copy of its own, and cut again."""
    loaded = tiny_model("llama_grouped")
    plan = families.plan_by_hand(loaded.adapter.model_shape(loaded.model), {1: [2, 5]}, {})
    plan = plan.with_module(replace(plan.blocks[1].attention, ungrouped=True))
    first = prune(loaded, families.recipe(recovery__rescore=False), plan=plan)
    assert (first.widths[1].heads, first.widths[1].kv_heads) == (4, 4)
    return prune(first.pruned, families.recipe(ffn__ratio=0.3))


def test_padding_finds_the_copies_after_another_cut(tiny_model, tmp_path):
    run, ids = crowded(tiny_model), families.token_ids()
    loaded = AutoModelForCausalLM.from_pretrained(save(run, tmp_path / "m", "padded"))
    assert _close(families.logits(loaded, ids), families.logits(run.pruned.model, ids))


def test_padding_refuses_key_heads_that_are_no_copies(tiny_model, tmp_path):
    run = crowded(tiny_model)
    keys = run.pruned.model.model.layers[1].self_attn.k_proj
    keys.weight.data[0] += 1
    with pytest.raises(Unsupported, match="Block 1 was ungrouped .* no longer copies"):
        save(run, tmp_path / "m", "padded")
    assert not list(tmp_path.iterdir())


def test_export_writes_the_other_forms_of_a_saved_folder(uneven, tmp_path):
    run, folder = uneven
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


def test_padded_after_pruning_twice(tmp_path, tiny):
    first = prune(tiny, families.recipe(**UNEVEN))
    loaded = pruning.load(str(save(first, tmp_path / "first")), device="cpu")
    second = prune(loaded, families.recipe(ffn__ratio=0.2))
    folder, ids = save(second, tmp_path / "second", "padded"), families.token_ids()
    padded = AutoModelForCausalLM.from_pretrained(folder)
    assert _close(families.logits(padded, ids), families.logits(second.pruned.model, ids))


def test_the_card_in_the_hubs_form(uneven, tmp_path):
    run = uneven[0]
    evaluation = Evaluation(12.5, 14.75, "some text (test), 4 windows.")
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\nbase_model: some/one\n---\n# One\n")
    dense = LoadedModel(**{**vars(run.dense), "source": str(base)})
    run = type(run)(**{**vars(run), "dense": dense})
    folder = save(run, tmp_path / "out", evaluation=evaluation)
    card = (folder / "README.md").read_text()
    head = front_matter(folder / "README.md")
    assert (head["base_model"], head["license"]) == ("some/one", "mit")
    assert head["library_name"] == "transformers" and "structured-pruning" in head["tags"]
    for part in ("12.50", "14.75", "some text (test), 4 windows.", "trust_remote_code=True",
                 "pruning.load", "What was removed", "provenance:", "Limits"):  # fmt: skip
        assert part in card, part
    assert "Stored as" not in card
    export(folder, tmp_path / "padded", "padded", dtype="bfloat16")
    assert front_matter(tmp_path / "padded" / "README.md")["license"] == "mit"
    card = (tmp_path / "padded" / "README.md").read_text()
    assert "14.75" in card and "Stored as bfloat16; sizes and perplexities below" in card


def test_a_licence_that_the_hub_has_no_name_for(uneven, tmp_path):
    """Its name and where it stands are carried on, through every form."""
    from huggingface_hub import ModelCard

    run = uneven[0]
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text(
        "---\nlicense: other\nlicense_name: own-terms\nlicense_link: LICENSE\nlanguage: [en, de]\n"
        "base_model: some/one\n---\n# One\n"
    )
    dense = LoadedModel(**{**vars(run.dense), "source": str(base)})
    folder = save(type(run)(**{**vars(run), "dense": dense}), tmp_path / "out")
    for form in ("compact", "padded", "gguf"):
        export(folder, tmp_path / form, form)
        card = ModelCard.load(tmp_path / form / "README.md")  # refuses what the hub cannot read
        found = card.data.to_dict()
        assert (found["license"], found["license_name"]) == ("other", "own-terms")
        assert found["license_link"] == "https://huggingface.co/some/one/blob/main/LICENSE"
        assert found["language"] == ["en", "de"] and found["base_model"] == "some/one"
        assert form in found["tags"] and found["pipeline_tag"] == "text-generation"
        assert "licence (own-terms)" in card.text


def test_gguf_holds_every_width_and_weight(uneven, tmp_path):
    gguf = pytest.importorskip("gguf")
    run = uneven[0]
    save(run, tmp_path / "out", "gguf", options=FormOptions(gguf_type="f32"))
    (file,) = (tmp_path / "out").glob("*.gguf")
    reader = gguf.GGUFReader(file)
    found = {name: field.contents() for name, field in reader.fields.items()}
    assert found["general.architecture"] == "deci"
    assert found["deci.attention.head_count"] == [w.heads for w in run.widths]
    assert found["deci.attention.head_count_kv"] == [w.kv_heads for w in run.widths]
    assert found["deci.feed_forward_length"] == [w.channels for w in run.widths]
    assert found["deci.attention.key_length"] == 10
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    live = sum(p.numel() for p in run.pruned.model.parameters())
    assert sum(data.size for data in tensors.values()) == live
    block = run.pruned.model.model.layers[2]
    assert torch.equal(torch.tensor(tensors["blk.2.ffn_down.bias"]), block.mlp.down_proj.bias)
    # a head's halves become neighbours: row 1 of the file is row 5 of a head of width 10
    query = torch.tensor(tensors["blk.2.attn_q.weight"])
    assert torch.equal(query[11], block.self_attn.q_proj.weight[15])


def test_gguf_rows_that_q8_cannot_hold_are_told(tmp_path):
    model = families.llama_grouped(hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
                                   head_dim=16, intermediate_size=96)  # fmt: skip
    families.randomise(model, 2)
    run = prune(families.wrap(model.eval().requires_grad_(False), "even"),
                families.recipe(ffn__ratio=0.4, recovery__method="none"))  # fmt: skip
    save(run, tmp_path / "out", "gguf", options=FormOptions(gguf_type="q8_0"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "3 matrices have rows that are no multiple of 32" in card


def test_gguf_is_refused_for_other_families(tiny_model, tmp_path):
    run = prune(tiny_model("gpt2"), families.recipe(**FFN_ONLY))
    with pytest.raises(Unsupported, match="not for GPT2LMHeadModel"):
        save(run, tmp_path / "m.gguf", "gguf")
    assert not list(tmp_path.iterdir())


def test_gguf_tokenizers(tmp_path, tokenizer):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from pruning.checkpoint.gguf_tokenizer import vocabulary

    rules = {
        "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "smollm": pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True),
             pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
    }  # fmt: skip
    for name, rule in rules.items():
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = rule
        made.train_from_iterator(
            ["one two three two"], trainers.BpeTrainer(special_tokens=["<s>"], show_progress=False)
        )
        found = vocabulary(PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>"), 40)
        assert (found.kind, found.splits) == ("gpt2", name)
        assert len(found.tokens) == len(found.types) == 40
        assert found.types[0] == 3 and found.types[-1] == 5  # control, unused
        assert "w o" in found.merges
    with pytest.raises(Unsupported, match="WordLevel"):
        vocabulary(tokenizer, 300)
