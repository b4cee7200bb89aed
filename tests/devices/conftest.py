"""Tests on a pretended accelerator: what the engine's tests have."""

from tests.helpers.fixtures import model_folder, own_cache, tokenizer

__all__ = ["model_folder", "own_cache", "tokenizer"]
