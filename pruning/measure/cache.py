"""Measurements on disk, under a key of everything that determines them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pruning.artifacts.measurement import MEASUREMENT_VERSION, Measurement
from pruning.distributed.ranks import ALONE, Ranks
from pruning.utils.digest import key_of
from pruning.utils.errors import HeadroomError
from pruning.utils.files import cache_root
from pruning.utils.version import __version__


def measurement_key(
    model: str,
    revision: str | None,
    dtype: str,
    corpus_fingerprint: str,
    samples: int,
    seq_len: int,
    seed: int,
    gradients: tuple[int, int] | None = None,
    loss_curves: tuple[int, int, int] | None = None,
    autocast_dtype: str | None = None,
) -> str:
    """Hex key of one measurement; ``model`` and ``corpus_fingerprint`` identify the contents.
    ``gradients``: windows of the gradient pass and their length, None without one; ``loss_curves``:
    of the pass for loss curves the texts, windows probed at most, and 1 where units are eliminated;
    ``autocast_dtype``: the one its modules run in (None: that of the weights)."""
    measured = [model, revision, dtype, corpus_fingerprint, samples, seq_len, seed]
    passes = [gradients, loss_curves, autocast_dtype]
    return key_of([MEASUREMENT_VERSION, __version__, *measured, *passes])


def cached_measurement(
    key: str, make: Callable[[], Measurement], ranks: Ranks = ALONE
) -> Measurement:
    """The measurement under ``key``, made, by all ``ranks`` together, and stored when there is none
    or its file is damaged. The cache is that of the first."""
    path: Path = cache_root() / "measurements" / f"{key}.json"
    known = ranks.from_first(lambda: _read(path))
    if known is not None:
        return known
    measurement = make()
    if ranks.is_first:
        try:
            measurement.write(path)
        except HeadroomError:
            pass  # a full disk must not lose the measurement that is in memory
    return measurement


def _read(path: Path) -> Measurement | None:
    """None where it is absent or damaged."""
    try:
        return Measurement.read(path) if path.is_file() else None
    except HeadroomError:
        return None
