"""A model of six blocks, and cells of its own for every test."""

from __future__ import annotations

import pytest

from pruning.api import from_memory
from tests.helpers import families


@pytest.fixture(scope="module")
def tiny(tokenizer):
    """Six blocks of six heads on two key/value heads."""
    model = families.llama_grouped(vocab_size=200, num_hidden_layers=6)
    families.randomise(model, 3)
    return from_memory(model.eval(), tokenizer)


@pytest.fixture(autouse=True)
def own_cells(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "cache"))
