"""The tokenizer of a model, where it has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pruning.utils.errors import SourceError, one_line

_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def load_tokenizer(place: str, commit: str | None) -> Any:
    """The model's tokenizer, or None when there is none. Raises SourceError when the folder has one
    that cannot be read: all that is made from the model would silently lack it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=commit, trust_remote_code=False)
        # where there are no files some classes make one that knows their special tokens only
        if len(tokenizer) > len(set(tokenizer.all_special_ids)):
            return tokenizer
        reason = "its tokens are missing"
    except Exception as error:
        reason = one_line(error)
    folder = Path(place)
    if any((folder / name).is_file() for name in _FILES):
        raise SourceError(
            f"The tokenizer in {folder} cannot be read ({reason}); save or copy the model again."
        )
    return None
