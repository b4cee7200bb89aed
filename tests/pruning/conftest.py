"""Engine tests: a cache of their own, one thread, no network."""

from tests.helpers.fixtures import (
    model_folder,
    only_new_objects,
    own_cache,
    tiny_model,
    tokenizer,
    uneven_run,
)

__all__ = ["model_folder", "only_new_objects", "own_cache", "tiny_model", "tokenizer", "uneven_run"]
