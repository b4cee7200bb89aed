"""Windows of tokens: random ones for calibration, consecutive ones for evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.data.corpora.base import CORPORA, Split, TextCorpus
from pruning.data.files import check_file
from pruning.data.files import read as read_file
from pruning.utils.digest import sha256_of
from pruning.utils.errors import SourceError, UsageError
from pruning.utils.registry import unknown_name

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Token ids [n, s] (int64, CPU) and where they come from.

    ``fingerprint``: hash of the text (or of the sampled tokens); ``bos``: the text's first token
    is a beginning-of-sequence token; ``group``: so many windows in a row are one piece of text
    and its augmentations, and are held out together or not at all.
    """

    ids: Tensor
    source: str
    fingerprint: str
    seed: int
    bos: bool
    group: int = 1


def read_text(source: str, split: Split) -> str:
    """Text of a named corpus' split or of a file; raises SourceError, UsageError."""
    check_source(source, tokens=False)
    if source in CORPORA:
        return CORPORA[source].read(split)
    return read_file(Path(source).expanduser())


def check_source(source: str, *, tokens: bool = True) -> None:
    """Raise UsageError or SourceError, before any work, when ``source`` is neither a corpus (one of
    token ids only with ``tokens``) nor a file that is there."""
    if source in CORPORA:
        if not tokens and not isinstance(CORPORA[source], TextCorpus):
            raise UsageError(
                f"The corpus {source!r} is made of tokens, not of text; evaluate on a text corpus."
            )
        return
    path = Path(source).expanduser()
    if not path.exists() and not path.suffix and "/" not in source:
        known = str(unknown_name("corpus", source, CORPORA.names()))
        raise UsageError(f"{known.rstrip('.')}, or a path.")
    check_file(path)


def tokens_of(tokenizer: Any, text: str) -> tuple[Tensor, bool]:
    """All token ids [t] of ``text``, tokenised once, and whether a BOS token leads them."""
    import torch

    if tokenizer is None:
        raise SourceError("The model has no tokenizer, so text cannot be read; use 'random'.")
    ids = tokenizer(text, verbose=False)["input_ids"]
    bos = bool(ids) and ids[0] == tokenizer.bos_token_id
    return torch.tensor(ids, dtype=torch.long), bos


def calibration_windows(
    source: str, model: Any, tokenizer: Any, samples: int, seq_len: int, seed: int
) -> Windows:
    """``samples`` windows of ``seq_len`` tokens at random places of the training split, or
    those of a token corpus. Raises SourceError when the text is too short."""
    import torch

    check_length(model, seq_len)
    if source in CORPORA and not isinstance(CORPORA[source], TextCorpus):
        ids = CORPORA[source].draw(model, tokenizer, samples, seq_len, seed)
        return Windows(ids, source, _digest(ids.numpy().tobytes()), seed, False)
    text = read_text(source, "train")
    ids, bos = tokens_of(tokenizer, text)
    if len(ids) < seq_len:
        raise SourceError(
            f"{source} has only {len(ids)} tokens, fewer than one window of {seq_len}; "
            "choose a longer text or a smaller --seq-len."
        )
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, len(ids) - seq_len + 1, (samples,), generator=generator)
    windows = ids[starts[:, None] + torch.arange(seq_len)]
    return Windows(windows, source, _digest(text.encode()), seed, bos)


def evaluation_windows(
    source: str, model: Any, tokenizer: Any, seq_len: int, count: int | None
) -> Windows:
    """The first ``count`` (None: all) non-overlapping windows of the test split, tail dropped
    (method section 5). Raises SourceError when there is not one whole window."""
    check_length(model, seq_len)
    text = read_text(source, "test")
    ids, bos = tokens_of(tokenizer, text)
    whole = len(ids) // seq_len
    if whole == 0:
        raise SourceError(
            f"{source} has only {len(ids)} tokens, fewer than one window of {seq_len}; "
            "choose a longer text or a smaller --seq-len."
        )
    used = whole if count is None else min(count, whole)
    windows = ids[: used * seq_len].reshape(used, seq_len)
    return Windows(windows, source, _digest(text.encode()), 0, bos)


def check_length(model: Any, seq_len: int) -> None:
    """Raise UsageError when windows are longer than the model's positions."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and seq_len > limit:
        raise UsageError(f"--seq-len {seq_len} exceeds the model's {limit} positions.")


def _digest(data: bytes) -> str:
    return sha256_of([data], 32)
