"""A tokenizer of as many words as the tiny models know."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helpers.families import SAMPLE
from tests.helpers.tiny_configs import VOCABULARY


@pytest.fixture(scope="session")
def small_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False
    )
    words.train([str(SAMPLE)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def reader(tiny_model, small_tokenizer):
    """``reader(family)``: a tiny model that can read words."""
    return lambda family: replace(tiny_model(family), tokenizer=small_tokenizer)
