"""Engine fixtures: a cache of their own, one thread, no network."""

from tests.helpers.fixtures import model_folder, own_cache, tiny_model, tokenizer

__all__ = ["model_folder", "own_cache", "tiny_model", "tokenizer"]
