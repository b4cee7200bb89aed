"""The GGUF form: every width and weight, and what it cannot hold."""

from __future__ import annotations

import pytest
import torch

from pruning.checkpoint import FormOptions, save
from pruning.pipeline import prune
from pruning.utils.errors import Unsupported
from tests.helpers import families
from tests.helpers.form_cases import FFN_ONLY


def test_gguf_holds_every_width_and_weight(uneven_run, tmp_path):
    gguf = pytest.importorskip("gguf")
    run = uneven_run[0]
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
    model = families.llama_grouped(
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=96,
    )
    families.randomise(model, 2)
    run = prune(
        families.wrap(model.eval().requires_grad_(False), "even"),
        families.recipe(ffn__ratio=0.4, recovery__method="none"),
    )
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

    from pruning.checkpoint.gguf.tokenizer import vocabulary

    rules = {
        "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "smollm": pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        ),
    }
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
