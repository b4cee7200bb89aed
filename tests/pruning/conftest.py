"""Engine tests: a cache of their own, one thread, no network."""

from tests.helpers.drop_in import drop_in
from tests.helpers.fixtures import (
    model_folder,
    only_new_objects,
    own_cache,
    run,
    tiny_model,
    tokenizer,
    uneven_run,
)

__all__ = [
    "drop_in",
    "model_folder",
    "only_new_objects",
    "own_cache",
    "run",
    "tiny_model",
    "tokenizer",
    "uneven_run",
]
