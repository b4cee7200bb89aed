"""Windows of tokens by the field's protocol, and what is refused."""

from __future__ import annotations

import pytest
import torch

from pruning.data import CORPORA, calibration_windows, evaluation_windows
from pruning.data.corpora import hub
from pruning.utils.errors import SourceError, UsageError
from tests.helpers import families


class Letters:
    """A tokenizer with one token per character."""

    bos_token_id = None

    def __call__(self, text, verbose=True):
        return {"input_ids": [ord(letter) for letter in text]}

    def __len__(self):
        return 50


@pytest.fixture(scope="module")
def model():
    """It has a row for every character."""
    return families.llama_grouped(vocab_size=0x3000)


@pytest.fixture
def small(tiny_model):
    return tiny_model("llama_grouped").model


@pytest.fixture
def letters(tmp_path):
    path = tmp_path / "letters.txt"
    path.write_bytes(bytes(range(32, 127)))  # 95 different characters
    return str(path)


def test_evaluation_windows_are_consecutive_and_drop_the_tail(model, letters):
    found = evaluation_windows(letters, model, Letters(), 10, None)
    assert torch.equal(found.ids, torch.arange(32, 122).reshape(9, 10))
    first = evaluation_windows(letters, model, Letters(), 10, 4)
    assert torch.equal(first.ids, found.ids[:4])
    assert evaluation_windows(letters, model, Letters(), 10, 99).ids.shape == (9, 10)
    assert found.bos == "none"


def test_a_text_that_begins_with_the_bos_token_is_no_tokenizer_that_adds_one(model, letters):
    tokenizer = Letters()
    tokenizer.bos_token_id = 32
    found = evaluation_windows(letters, model, tokenizer, 10, None)
    assert found.bos == "none" and found.ids[0, 0] == 32


def test_calibration_windows_are_random_stretches(model, letters):
    found = calibration_windows(letters, model, Letters(), 200, 10, seed=3)
    assert found.ids.shape == (200, 10) and found.ids.dtype == torch.int64
    starts = found.ids[:, 0]
    assert torch.equal(found.ids, starts[:, None] + torch.arange(10))
    assert starts.min() == 32 and starts.max() == 32 + 85  # first and last possible place
    same = calibration_windows(letters, model, Letters(), 200, 10, seed=3)
    other = calibration_windows(letters, model, Letters(), 200, 10, seed=4)
    assert torch.equal(same.ids, found.ids) and not torch.equal(other.ids, found.ids)
    assert same.fingerprint == other.fingerprint and other.seed == 4


def test_the_fingerprint_is_that_of_the_text(model, tmp_path):
    prints = []
    for text in ("one text " * 9, "another text " * 9):
        (tmp_path / "text.txt").write_text(text)
        found = calibration_windows(str(tmp_path / "text.txt"), model, Letters(), 2, 8, 0)
        prints.append(found.fingerprint)
    assert prints[0] != prints[1]


def test_line_ends_of_a_plain_file_are_kept(model, tmp_path):
    (tmp_path / "crlf.txt").write_bytes(b"ab\r\ncd\r\n")
    found = evaluation_windows(str(tmp_path / "crlf.txt"), model, Letters(), 8, None)
    assert bytes(found.ids[0].tolist()) == b"ab\r\ncd\r\n"


def _text_of(path, model) -> str:
    ids = evaluation_windows(str(path), model, Letters(), 1, None).ids.reshape(-1)
    return "".join(map(chr, ids.tolist()))


def test_rows_of_jsonl(model, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": "zwei \\u00fc"}\n', encoding="utf-8")
    assert _text_of(path, model) == "one\n\nzwei \u00fc"


def test_jsonl_with_the_line_separators_of_unicode(model, tmp_path):
    """JSON allows them inside strings; web text is full of them."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a\u2028b\u0085c"}\n{"text": "d"}\n', encoding="utf-8")
    assert _text_of(path, model) == "a\u2028b\u0085c\n\nd"


def test_rows_of_parquet(model, tmp_path):
    import pandas

    path = tmp_path / "rows.parquet"
    pandas.DataFrame({"id": [1, 2, 3], "sentence": ["one", None, "two"]}).to_parquet(path)
    assert _text_of(path, model) == "one\n\ntwo"


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("empty.txt", b"", "no text"),
        ("blank.txt", b" \n \n", "no text"),
        ("latin.txt", b"caf\xe9 au lait", "UTF-8"),
        ("short.txt", b"abc", "only 3 tokens"),
        ("broken.jsonl", b'{"text": "a"', "cannot be read"),
        ("other.jsonl", b'{"body": "a"}\n', "text field"),
        ("list.jsonl", b"[1, 2]\n", "text field"),
        ("latin.jsonl", b'{"text": "caf\xe9"}\n', "UTF-8"),
        ("broken.parquet", b"PAR1 nothing", "cannot be read"),
    ],
)
def test_files_that_are_refused(model, tmp_path, name, content, word):
    path = tmp_path / name
    path.write_bytes(content)
    for draw in (
        lambda: calibration_windows(str(path), model, Letters(), 2, 8, 0),
        lambda: evaluation_windows(str(path), model, Letters(), 8, None),
    ):
        with pytest.raises(SourceError) as caught:
            draw()
        assert "\n" not in str(caught.value) and word in str(caught.value)
        assert name in str(caught.value)


def test_parquet_without_text_is_refused(model, tmp_path):
    import pandas

    pandas.DataFrame({"id": [1]}).to_parquet(tmp_path / "ids.parquet")
    with pytest.raises(SourceError, match="no text column"):
        evaluation_windows(str(tmp_path / "ids.parquet"), model, Letters(), 8, None)


def test_wrong_requests(model, letters, tmp_path):
    with pytest.raises(UsageError, match="wikitext2"):
        evaluation_windows("wikitex", model, Letters(), 8, None)
    with pytest.raises(SourceError, match="neither"):
        evaluation_windows(str(tmp_path / "absent.txt"), model, Letters(), 8, None)
    with pytest.raises(SourceError, match="neither"):
        evaluation_windows(str(tmp_path), model, Letters(), 8, None)
    with pytest.raises(UsageError, match="48 positions"):
        evaluation_windows(letters, model, Letters(), 49, None)
    with pytest.raises(UsageError, match="tokens, not of text"):
        evaluation_windows("random", model, Letters(), 8, None)
    with pytest.raises(SourceError, match="no tokenizer"):
        calibration_windows(letters, model, None, 2, 8, 0)


@pytest.mark.parametrize("name", ["random", "self"])
@pytest.mark.parametrize("tokenizer", [None, Letters()])
def test_token_corpora(small, name, tokenizer):
    found = calibration_windows(name, small, tokenizer, 18, 9, seed=1)
    assert found.ids.shape == (18, 9) and found.ids.dtype == torch.int64
    assert found.ids.min() >= 0 and found.ids.max() < families.VOCABULARY
    if name == "random" and tokenizer:
        assert found.ids.max() < len(tokenizer)
    again = calibration_windows(name, small, tokenizer, 18, 9, seed=1)
    other = calibration_windows(name, small, tokenizer, 18, 9, seed=2)
    assert torch.equal(again.ids, found.ids) and again.fingerprint == found.fingerprint
    assert not torch.equal(other.ids, found.ids) and other.fingerprint != found.fingerprint


def test_self_generated_text_is_likelier_than_random_tokens(small):
    def likelihood(name):
        ids = calibration_windows(name, small, None, 40, 16, seed=0).ids
        probs = families.logits(small, ids)[:, :-1].log_softmax(-1)
        return probs.gather(-1, ids[:, 1:, None]).mean()

    assert likelihood("self") > likelihood("random") + 0.1


def test_the_sample_needs_no_network():
    train, test = (CORPORA["sample"].read(split) for split in ("train", "test"))
    assert len(train.split()) >= 5000 and len(test.split()) > 1000
    lines = {line for line in train.splitlines() if len(line) > 40}
    assert not lines & set(test.splitlines())


@pytest.mark.parametrize("name", ["wikitext2", "ptb", "c4", "bookcorpus"])
def test_a_hub_that_fails_is_one_sentence(model, monkeypatch, name):
    import datasets

    monkeypatch.setattr(hub, "is_reachable", lambda: True)

    def fail(*_args, **_kwargs):
        raise ConnectionError("Couldn't reach the Hub\nTraceback: much more")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(SourceError) as caught:
        evaluation_windows(name, model, Letters(), 8, None)
    message = str(caught.value)
    assert "\n" not in message and "hub" in message and "'sample'" in message


@pytest.mark.parametrize("name", ["wikitext2", "c4"])
def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch, name):
    """Its own client would try for half a minute."""
    import datasets

    def never(*_args, **_kwargs):
        raise AssertionError("the hub is asked all the same")

    monkeypatch.setattr(datasets, "load_dataset", never)
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    with pytest.raises(SourceError, match="does not answer, and no copy is here"):
        CORPORA[name].read("train")


def test_hub_rows_are_joined_as_the_field_does(model, monkeypatch):
    import datasets

    monkeypatch.setattr(hub, "is_reachable", lambda: True)
    asked = []

    def rows(path, **options):
        asked.append((path, options))
        return {"text": ["one", "", "two"]}

    monkeypatch.setattr(datasets, "load_dataset", rows)
    assert CORPORA["wikitext2"].read("test") == "one\n\n\n\ntwo"
    path, options = asked[0]
    assert path == "Salesforce/wikitext"
    assert (options["name"], options["split"]) == ("wikitext-2-raw-v1", "test")


def test_a_corpus_without_a_test_split_never_evaluates_on_its_calibration_text(monkeypatch):
    import datasets

    monkeypatch.setattr(hub, "is_reachable", lambda: True)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, **k: ({"text": str(n)} for n in range(50_000))
    )
    train, test = (set(CORPORA["bookcorpus"].read(s).split()) for s in ("train", "test"))
    assert len(train) == len(test) == 20_000 and not train & test
