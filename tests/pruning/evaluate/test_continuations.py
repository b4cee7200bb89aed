"""Continuations: what greedy decoding gives, and how two models' are compared."""

from __future__ import annotations

import pytest
import torch

import pruning
from pruning.evaluate import compare_continuations
from pruning.evaluate.continuations import prompts, repetition
from pruning.pipeline import prune
from pruning.utils.errors import Cancelled, SourceError, UsageError
from tests.helpers import families

TEXTS = ("The sea and the", "In the morning")


@pytest.fixture(scope="module")
def pair(model_folder):
    dense = pruning.load(str(model_folder), device="cpu")
    return dense, prune(dense, families.recipe(ffn__ratio=0.5, heads__ratio=0.5)).pruned


def by_hand(model, ids, count):
    """Greedy decoding without a cache."""
    for _ in range(count):
        with torch.no_grad():
            last = model(input_ids=ids, use_cache=False).logits[:, -1:]
        ids = torch.cat([ids, last.argmax(-1)], dim=1)
    return ids


def test_figures_are_those_of_greedy_decoding(pair):
    dense, pruned = pair
    found = compare_continuations(
        dense.model, pruned.model, dense.tokenizer, texts=TEXTS, new_tokens=12
    )
    agreed, repeated = [], []
    for text in TEXTS:
        ids = dense.tokenizer(text, return_tensors="pt")["input_ids"]
        start, theirs = ids.shape[1], by_hand(dense.model, ids, 12)
        repeated.append(repetition(by_hand(pruned.model, ids, 12)[0, start:].tolist()))
        for at in range(start, start + 12):
            with torch.no_grad():
                choice = pruned.model(input_ids=theirs[:, :at]).logits[0, -1].argmax()
            agreed.append(bool(choice == theirs[0, at]))
    assert found.agreement == sum(agreed) / 24 < 1.0
    assert found.repeated == pytest.approx(sum(repeated) / 2)
    assert (found.prompts, found.new_tokens) == (2, 12)


def test_a_model_agrees_with_itself(pair):
    found = compare_continuations(
        pair[0].model, pair[0].model, pair[0].tokenizer, texts=TEXTS, new_tokens=8
    )
    assert found.agreement == 1.0 and found.repeated == found.dense_repeated


def test_repetition_counts_what_was_there_before():
    assert repetition([1, 2, 3, 4, 5, 6]) == 0.0
    assert repetition([7] * 7) == 0.75
    assert repetition([1, 2, 1, 2, 1], size=2) == 0.5


def test_prompts_are_twenty_and_requests_are_checked(pair):
    assert len(set(prompts())) == 20
    model, tokenizer = pair[0].model, pair[0].tokenizer
    with pytest.raises(UsageError, match="4-grams"):
        compare_continuations(model, model, tokenizer, new_tokens=4)
    with pytest.raises(SourceError, match="tokenizer"):
        compare_continuations(model, model, None)
    with pytest.raises(Cancelled):
        compare_continuations(model, model, tokenizer, should_cancel=lambda: True)
