"""What holds of every model that was loaded, whatever its source and placement."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pruning.models.loading.files import COMPUTED
from pruning.utils.errors import SourceError, shortened


def check_names(
    source: str, model: nn.Module, missing: Iterable[str], unexpected: Iterable[str]
) -> None:
    """Raise SourceError for the first weight that is ``missing`` in the files, or that they hold
    and the model has no place for; what models compute themselves may be there."""
    for name in sorted(missing):
        raise SourceError(
            f"{source} lacks weight {_short(name)}; download or save the model again."
        )
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    for name in sorted(unexpected):
        if not COMPUTED.search(name) and not any(re.search(known, name) for known in ignored):
            raise SourceError(
                f"{source} holds {_short(name)}, for which its config has no place, so the model "
                "would compute without it; mend config.json, or name the model it was made from."
            )


def check_shape(source: str, name: str, stored: Iterable[int], wanted: Iterable[int]) -> None:
    """Raise SourceError when a weight in the files has another shape than in the model."""
    if tuple(stored) != tuple(wanted):
        raise SourceError(
            f"{source} holds {_short(name)} with the shape {tuple(stored)}, its config says "
            f"{tuple(wanted)}; mend the sizes (like vocab_size) in config.json or save it again."
        )


def check_finite(source: str, name: str, tensor: Tensor, narrowed: bool = False) -> None:
    """Raise SourceError for a weight with NaN or infinite values; ``narrowed``: it was stored in a
    wider format than float16."""
    if not tensor.is_floating_point() or tensor.sum(dtype=torch.float32).isfinite():
        return
    if tensor.isfinite().all():  # only their sum was too large
        return
    if narrowed and tensor.dtype == torch.float16 and not tensor.isnan().any():
        raise SourceError(
            f"{source} holds values in {_short(name)} that are too large for float16; choose "
            "bfloat16 or float32."
        )
    what = "NaN" if tensor.isnan().any() else "infinite values"
    raise SourceError(f"{source} holds {what} in {_short(name)}; save or train the model again.")


def settle_ties(model: Any) -> None:
    """Have the config say what the weights do: two different matrices are not tied, whatever it
    said (the rule of transformers 5), so that every copy and saved form keeps both."""
    config, head = model.config, model.get_output_embeddings()
    if getattr(config, "tie_word_embeddings", False) and head is not None:
        config.tie_word_embeddings = head.weight is model.get_input_embeddings().weight


def check_tokenizer(source: str, tokenizer: Any, model: Any) -> None:
    """Raise SourceError when the tokenizer's own vocabulary is larger than the embedding. Added
    tokens may lie beyond it: some published models have such, and never use them."""
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer is not None and tokenizer.vocab_size > rows:
        raise SourceError(
            f"The tokenizer of {source} knows {tokenizer.vocab_size} tokens, the model's embedding "
            f"has {rows} rows; give the folder the tokenizer that the model was trained with."
        )


def _short(name: str) -> str:
    return repr(shortened(name, 80))
