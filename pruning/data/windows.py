"""Windows of tokens: random ones for calibration, consecutive ones for evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.data.bos import Bos, Leading, adds_bos, leading
from pruning.data.corpora.base import CORPORA, Split, TextCorpus
from pruning.data.files import check_file
from pruning.data.files import read as read_file
from pruning.distributed.ranks import ALONE, Ranks
from pruning.utils.digest import sha256_of
from pruning.utils.errors import SourceError, UsageError, shortened
from pruning.utils.registry import unknown_name

if TYPE_CHECKING:
    from torch import Tensor


_OTHER_SEED = 2**31
"""Added to a recipe's seed, which is less, for windows other than those of calibration."""

_OFFERED = 64
"""Places that are looked at for each held-out window."""


@dataclass(frozen=True)
class Windows:
    """Token ids [n, s] (int64, CPU) and where they come from.

    ``fingerprint``: hash of the text (or of the sampled tokens) and of ``bos`` where it is not
    the tokenizer's own way; ``bos``: what a beginning-of-sequence token leads; ``group``: so many
    windows in a row are one piece of text and its augmentations, and are held out together or not
    at all; ``ranks``: who shares them.
    """

    ids: Tensor
    source: str
    fingerprint: str
    seed: int
    bos: Leading
    group: int = 1
    ranks: Ranks = ALONE


def read_text(source: str, split: Split, field: str | None = None) -> str:
    """Text of a named corpus' split or of a file, there from its column ``field``; raises
    SourceError, UsageError."""
    check_source(source, field=field, tokens=False)
    if source in CORPORA:
        return CORPORA[source].read(split)
    return read_file(Path(os.path.expanduser(source)), field)


def check_source(source: str, *, field: str | None = None, tokens: bool = True) -> None:
    """Raise UsageError or SourceError, before any work, when ``source`` is neither a corpus (one of
    token ids only with ``tokens``) nor a file that is there; a ``field`` is only for files."""
    if source in CORPORA:
        if not tokens and not isinstance(CORPORA[source], TextCorpus):
            raise UsageError(
                f"The corpus {source!r} is made of tokens, not of text; evaluate on a text corpus."
            )
        if field is not None:
            raise UsageError(
                f"The corpus {source!r} has its own text field; name one only for a file."
            )
        return
    # these functions, unlike Path's, take any name
    path = Path(os.path.expanduser(source))
    if not path.suffix and "/" not in source and not os.path.exists(path):
        known = str(unknown_name("corpus", source, CORPORA.names()))
        raise UsageError(f"{known.rstrip('.')}, or a path.")
    check_file(path)


def tokens_of(tokenizer: Any, text: str) -> Tensor:
    """All token ids [t] of ``text``, tokenised once, without the BOS token that some add."""
    import torch

    ids = tokenizer(text, verbose=False)["input_ids"]
    return torch.tensor(ids[1:] if adds_bos(tokenizer) else ids, dtype=torch.long)


def check_tokens(what: str, ids: Tensor, tokenizer: Any, model: Any) -> None:
    """Raise SourceError for the first of ``ids`` that the model's embedding has no row for: some
    tokenizers have added tokens that their model was not made larger for. ``what``: where it is."""
    rows = model.get_input_embeddings().weight.shape[0]
    beyond = ids[ids >= rows]
    if len(beyond):
        number = int(beyond[0])
        token = shortened(str(tokenizer.convert_ids_to_tokens(number)), 40)
        raise SourceError(
            f"{what} holds the token {token!r} (number {number}), for which the model's embedding "
            f"of {rows} rows has none; leave it out of the text, or resize the embedding and save "
            "the model again."
        )


def calibration_windows(
    source: str,
    model: Any,
    tokenizer: Any,
    samples: int,
    seq_len: int,
    seed: int,
    *,
    bos: Bos = "auto",
    text_field: str | None = None,
    held_out: int = 0,
) -> Windows:
    """``samples`` windows of ``seq_len`` tokens at random places of the training split, or
    those of a token corpus; ``bos`` as in :func:`pruning.data.bos.leading`, its token counted.

    ``held_out``: not these windows but so many others of the same text, which share no token with
    them where it is long enough. Raises SourceError when the text is too short, or holds what the
    model does not know."""
    import torch

    check_length(model, seq_len)
    if source in CORPORA and not isinstance(CORPORA[source], TextCorpus):
        led = "every" if leading(bos, tokenizer) == "every" else "none"
        own = seq_len - (led == "every")
        samples, seed = (held_out, seed + _OTHER_SEED) if held_out else (samples, seed)
        ids = CORPORA[source].sample(model, tokenizer, samples, own, seed)
        ids = _led(ids, tokenizer) if led == "every" else ids
        return Windows(ids, source, _digest(ids.numpy().tobytes()), seed, led)
    if tokenizer is None:
        raise SourceError(f"The model has no tokenizer, so {source} cannot be read; use 'random'.")
    text = read_text(source, "train", text_field)
    ids, led, own = _pieces(text, tokenizer, bos, seq_len)
    _check_one_window(ids, own, source, seq_len)
    starts = _starts(len(ids), own, samples, seed)
    if held_out:
        starts = _elsewhere(starts, len(ids), own, held_out, seed)
    windows = ids[starts[:, None] + torch.arange(own)]
    windows = _led(windows, tokenizer) if led == "every" else windows
    check_tokens(source, windows, tokenizer, model)
    return Windows(windows, source, _fingerprint(text, led, tokenizer), seed, led)


def _starts(tokens: int, own: int, samples: int, seed: int) -> Tensor:
    """Random first places [samples] of windows of ``own`` among so many tokens."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, tokens - own + 1, (samples,), generator=generator)


def _elsewhere(used: Tensor, tokens: int, own: int, count: int, seed: int) -> Tensor:
    """First places [count] of other windows: at random among those that share no token with the
    ``used`` ones; where there are too few, those that share least."""
    offered = _starts(tokens, own, _OFFERED * count, seed + _OTHER_SEED)
    ordered = used.sort().values
    after = (offered[:, None] >= ordered).sum(1)  # how many of the used begin before
    before = ordered[(after - 1).clamp_min(0)]
    behind = ordered[after.clamp_max(len(ordered) - 1)]
    apart = ((offered - before).abs()).minimum((offered - behind).abs())
    shared = (own - apart).clamp_min(0)
    return offered[shared.argsort(stable=True)[:count]]


def evaluation_windows(
    source: str,
    model: Any,
    tokenizer: Any,
    seq_len: int,
    count: int | None,
    *,
    bos: Bos = "auto",
    text_field: str | None = None,
) -> Windows:
    """The first ``count`` (None: all) non-overlapping windows of the test split, tail dropped
    (method section 5); ``bos`` as in :func:`pruning.data.bos.leading`, its token counted. Raises
    SourceError when there is not one whole window, or a token that the model does not know."""
    check_length(model, seq_len)
    text = read_text(source, "test", text_field)
    if tokenizer is None:
        raise SourceError(
            "The model has no tokenizer, so no text can be evaluated; put the tokenizer's files "
            "into the model's folder."
        )
    ids, led, own = _pieces(text, tokenizer, bos, seq_len)
    whole = _check_one_window(ids, own, source, seq_len)
    used = whole if count is None else min(count, whole)
    windows = ids[: used * own].reshape(used, own)
    windows = _led(windows, tokenizer) if led == "every" else windows
    check_tokens(source, windows, tokenizer, model)
    return Windows(windows, source, _fingerprint(text, led, tokenizer), 0, led)


def _pieces(text: str, tokenizer: Any, bos: Bos, seq_len: int) -> tuple[Tensor, Leading, int]:
    """Token ids [t] of the text, what BOS leads, and how many of them a window takes."""
    led, ids = leading(bos, tokenizer), tokens_of(tokenizer, text)
    if led == "first":
        ids = _led(ids[None], tokenizer)[0]
    return ids, led, seq_len - 1 if led == "every" else seq_len


def _led(windows: Tensor, tokenizer: Any) -> Tensor:
    """``windows`` [n, s - 1] behind a BOS token each [n, s]."""
    import torch

    return torch.nn.functional.pad(windows, (1, 0), value=tokenizer.bos_token_id)


def _check_one_window(ids: Tensor, own: int, source: str, seq_len: int) -> int:
    """Whole windows in the text; raises UsageError and SourceError when there is none."""
    if own < 1:
        raise UsageError(f"A window of {seq_len} tokens is BOS alone; choose a larger --seq-len.")
    if len(ids) < own:
        raise SourceError(
            f"{source} has only {len(ids)} tokens, fewer than one window of {seq_len}; "
            "choose a longer text or a smaller --seq-len."
        )
    return len(ids) // own


def _fingerprint(text: str, led: Leading, tokenizer: Any) -> str:
    """The text's own digest where windows are cut from what the tokenizer gives as it is."""
    as_it_is = "first" if adds_bos(tokenizer) else "none"
    return _digest(text.encode() + (b"" if led == as_it_is else f"\0bos:{led}".encode()))


def check_length(model: Any, seq_len: int) -> None:
    """Raise UsageError when windows are longer than the model's positions."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and seq_len > limit:
        raise UsageError(f"--seq-len {seq_len} exceeds the model's {limit} positions.")


def _digest(data: bytes) -> str:
    return sha256_of([data], 32)
