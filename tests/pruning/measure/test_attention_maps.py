"""Attention maps of a sentence: the model's own, block by block, and nothing is left changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pruning.measure.attention_maps import attention_patterns
from pruning.utils.errors import Cancelled, SourceError, UsageError
from tests.helpers import families

SENTENCE = "the cat sat on the mat and looked at the moon"


@pytest.fixture
def reader(tiny_model, tokenizer):
    def get(family: str):
        # ids of the small vocabulary only
        return replace(tiny_model(family), tokenizer=_Within(tokenizer))

    return get


class _Within:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text):
        ids = self.tokenizer(text)["input_ids"]
        return {"input_ids": [token % families.VOCABULARY for token in ids]}

    def decode(self, ids):
        return self.tokenizer.decode(ids)


@pytest.mark.parametrize("family", ["llama_grouped", "gpt2", "gpt_neox"])
def test_the_maps_are_those_of_the_model(reader, family):
    loaded = reader(family)
    before = loaded.model.config._attn_implementation
    found = attention_patterns(loaded, SENTENCE)
    assert loaded.model.config._attn_implementation == before
    ids = torch.tensor([loaded.tokenizer(SENTENCE)["input_ids"]])
    loaded.model.config._attn_implementation = "eager"
    try:
        own = loaded.model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    finally:
        loaded.model.config._attn_implementation = before
    assert len(found.tokens) == ids.shape[1] and len(found.maps) == len(own)
    for mine, theirs in zip(found.maps, own, strict=True):
        np.testing.assert_allclose(mine, theirs[0].float().numpy(), atol=1e-5)
        np.testing.assert_allclose(mine.sum(axis=-1), 1.0, atol=1e-5)


def test_a_long_sentence_is_cut(reader):
    found = attention_patterns(reader("llama_grouped"), SENTENCE, longest=5)
    assert len(found.tokens) == 5 and found.maps[0].shape[1:] == (5, 5)


def test_what_cannot_be_read_is_said_in_one_sentence(reader, tiny_model):
    with pytest.raises(SourceError, match="no tokenizer"):
        attention_patterns(tiny_model("llama_grouped"), SENTENCE)
    with pytest.raises(UsageError, match="empty"):
        attention_patterns(reader("llama_grouped"), "  ")


def test_it_can_be_cancelled_and_puts_the_kernel_back(reader):
    loaded = reader("llama_grouped")
    before = loaded.model.config._attn_implementation
    with pytest.raises(Cancelled):
        attention_patterns(loaded, SENTENCE, should_cancel=lambda: True)
    assert loaded.model.config._attn_implementation == before
