"""The beginning-of-sequence token, as tokenizers add it and as a recipe asks for it."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pruning.cli.main import main
from pruning.data import calibration_windows, evaluation_windows
from pruning.evaluate import perplexity
from pruning.utils.errors import UsageError
from tests.helpers import families


@pytest.fixture(scope="module")
def words():
    """A word-level tokenizer, and the same one adding BOS as Llama's and Gemma's do."""
    vocabulary = {"<s>": 0, "<unk>": 1} | {f"w{n}": n + 2 for n in range(50)}

    def made(adds: bool, **more):
        inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        if adds:
            inner.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", 0)]
            )
        return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **more)

    return {
        "adds": made(True, bos_token="<s>"),
        "has": made(False, bos_token="<s>"),
        "lacks": made(False),
    }


@pytest.fixture(scope="module")
def llama():
    model = families.llama_grouped(vocab_size=60)
    families.randomise(model, 3)
    return model.eval()


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text(" ".join(f"w{n}" for n in range(50)))
    return str(file)


def _evaluated(text, llama, tokenizer, bos):
    return evaluation_windows(text, llama, tokenizer, 8, None, bos=bos)


@pytest.mark.parametrize(
    ("which", "bos", "led"),
    [
        ("adds", "auto", "every"),
        ("adds", "every", "every"),
        ("adds", "first", "first"),
        ("adds", "none", "none"),
        ("has", "auto", "none"),
        ("has", "every", "every"),
        ("has", "first", "first"),
        ("lacks", "auto", "none"),
        ("lacks", "none", "none"),
    ],
)
def test_what_a_bos_token_leads(words, llama, text, which, bos, led):
    found = _evaluated(text, llama, words[which], bos)
    ids = torch.arange(2, 52)
    if led == "every":
        expected = torch.nn.functional.pad(ids[:49].reshape(7, 7), (1, 0))
    elif led == "first":
        expected = torch.nn.functional.pad(ids, (1, 0))[:48].reshape(6, 8)
    else:
        expected = ids[:48].reshape(6, 8)
    assert found.bos == led and torch.equal(found.ids, expected)

    drawn = calibration_windows(text, llama, words[which], 300, 8, 5, bos=bos)
    assert drawn.bos == led and drawn.ids.shape == (300, 8)
    own = drawn.ids[:, 1:] if led == "every" else drawn.ids
    assert (drawn.ids[:, 0] == 0).all() == (led == "every")
    steps = own.diff(dim=1)
    assert (steps[:, 1:] == 1).all()  # stretches of the text
    assert drawn.ids.max() == 51 and (drawn.ids == 2).any()  # from its first word to its last


def test_fingerprints_tell_the_windows_apart(words, llama, text):
    for which, plain in (("adds", "first"), ("has", "none")):
        prints = {
            bos: _evaluated(text, llama, words[which], bos).fingerprint
            for bos in ("every", "first", "none")
        }
        assert len(set(prints.values())) == 3
        # cut from what the tokenizer gives, the text alone decides, as before
        assert prints[plain] == _evaluated(text, llama, words["lacks"], "none").fingerprint


@pytest.mark.parametrize("name", ["random", "self"])
def test_token_corpora_begin_with_it_too(words, llama, name):
    found = calibration_windows(name, llama, words["adds"], 20, 8, 1)
    assert found.bos == "every" and found.ids.shape == (20, 8)
    assert (found.ids[:, 0] == 0).all() and not (found.ids[:, 1] == 0).all()
    without = calibration_windows(name, llama, words["has"], 20, 8, 1)
    assert without.bos == "none" and not (without.ids[:, 0] == 0).all()


def test_the_perplexity_is_that_of_windows_that_begin_with_bos(words, llama, text):
    """Computed again with plain transformers, one window at a time."""
    losses = []
    for start in range(0, 49, 7):
        ids = torch.tensor([[0, *range(2 + start, 9 + start)]])
        with torch.no_grad():
            losses.append(llama(input_ids=ids, labels=ids).loss.double())
    found = perplexity(llama, words["adds"], text, seq_len=8)
    assert found.nll == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert found.bos == "every" and "a BOS token before every window" in found.protocol()
    first = perplexity(llama, words["adds"], text, seq_len=8, bos="first")
    assert "with a BOS token first" in first.protocol()
    assert first.nll != pytest.approx(found.nll, rel=1e-3)
    assert "no BOS token" in perplexity(llama, words["has"], text, seq_len=8).protocol()


def test_wrong_bos(words, llama, text):
    for which, bos, word in (("lacks", "every", "no BOS token"), ("adds", "all", "Unknown bos")):
        with pytest.raises(UsageError, match=word):
            _evaluated(text, llama, words[which], bos)
    with pytest.raises(UsageError, match="BOS alone"):
        evaluation_windows(text, llama, words["adds"], 1, None)


@pytest.fixture(scope="module")
def folder(words, llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    llama.save_pretrained(path)
    words["adds"].save_pretrained(path)
    return path


def test_the_options_of_the_command_line(folder, tmp_path, capsys):
    rows = [{"text": "no", "body": f"w{n} w{n + 1} w{n + 2} w{n + 3}"} for n in range(20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    command = ["evaluate", str(folder), "--text", str(path), "--seq-len", "8", "--json"]
    results = {}
    for bos in ("auto", "first"):
        assert main([*command, "--text-field", "body", "--bos", bos]) == 0
        results[bos] = json.loads(capsys.readouterr().out)
    assert results["auto"]["bos"] == "every" and results["first"]["bos"] == "first"
    assert results["auto"]["windows"] == 80 // 7 and results["first"]["windows"] == 81 // 8


def test_a_model_without_tokenizer_is_not_sent_where_nothing_helps(llama, tmp_path, capsys):
    llama.save_pretrained(tmp_path / "bare")
    assert main(["evaluate", str(tmp_path / "bare"), "--text", "sample", "--seq-len", "8"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no tokenizer" in line and "random" not in line
