"""Losses token by token agree with perplexity; text arrives piece by piece."""

from __future__ import annotations

import math

import pytest

import pruning
from pruning.artifacts.recipe import Recipe
from pruning.evaluate import generate, perplexity, read_with_both
from pruning.evaluate.token_losses import pieces
from pruning.pipeline import prune
from pruning.utils.errors import Cancelled, UsageError


@pytest.fixture(scope="module")
def run(model_folder):
    loaded = pruning.load(str(model_folder), device="cpu")
    recipe = Recipe.parse(
        {
            "calibration": {"samples": 8, "seq_len": 16},
            "ffn": {"ratio": 0.5},
            "recovery": {"method": "none", "copies": 0},
        }
    )
    return prune(loaded, recipe)


@pytest.fixture(scope="module")
def found(run):
    return read_with_both(
        run.dense.model, run.pruned.model, run.dense.tokenizer, "sample", seq_len=12, windows=5
    )[1]


def test_the_mean_is_the_perplexity(run, found):
    for side, name in ((run.dense, "dense"), (run.pruned, "pruned")):
        values = [v for passage in found.passages for v in getattr(passage, name)]
        expected = perplexity(side.model, side.tokenizer, "sample", seq_len=12, windows=5)
        assert len(values) == expected.tokens
        assert math.exp(sum(values) / len(values)) == pytest.approx(expected.perplexity, rel=1e-5)


def test_the_worst_tokens_lead(found):
    worst = found.worst(10)
    assert [rise for *_, rise in worst] == sorted((rise for *_, rise in worst), reverse=True)
    for index, place, rise in worst:
        assert found.passages[index].rises[place - 1] == rise
    assert worst[0][2] == max(max(passage.rises) for passage in found.passages)


def test_a_model_against_itself_has_no_rise(run):
    same = read_with_both(
        run.dense.model, run.dense.model, run.dense.tokenizer, "sample", seq_len=8, windows=2
    )[1]
    assert all(rise == 0.0 for passage in same.passages for rise in passage.rises)


def test_pieces_join_to_the_text(run, found):
    tokenizer = run.dense.tokenizer
    for passage in found.passages:
        assert len(passage.pieces) == 12 and len(passage.rises) == 11
        assert "".join(passage.pieces).strip()
    ids = list(range(3, 15))
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


class _Bytes:
    """Decodes bytes, as byte-level tokenizers do."""

    def decode(self, ids, **_):
        return bytes(ids).decode("utf-8", errors="replace")


def test_a_character_in_two_tokens_belongs_to_the_second():
    assert pieces(_Bytes(), "aτb".encode()) == ["a", "", "τ", "b"]
    assert "".join(pieces(_Bytes(), "aτ".encode()[:2])) == "a\ufffd"


def test_wrong_use_and_cancelling(run):
    models = run.dense.model, run.pruned.model, run.dense.tokenizer, "sample"
    with pytest.raises(UsageError):
        read_with_both(*models, seq_len=1)
    with pytest.raises(Cancelled):
        read_with_both(*models, seq_len=8, windows=2, should_cancel=lambda: True)


def test_text_arrives_piece_by_piece(run):
    heard: list[str] = []
    written = generate(
        run.dense.model, run.dense.tokenizer, "the water", max_new_tokens=12, on_text=heard.append
    )
    assert len(heard) > 1 and "".join(heard).strip() == written.text.strip()


def test_generation_can_be_cancelled_between_tokens(run):
    heard: list[str] = []
    with pytest.raises(Cancelled):
        generate(
            run.dense.model,
            run.dense.tokenizer,
            "the water",
            max_new_tokens=40,
            on_text=heard.append,
            should_cancel=lambda: len(heard) > 2,
        )
    assert len(heard) < 40
