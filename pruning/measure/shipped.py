"""The measurement of the embedded model that is shipped, so that its first run need not measure."""

from __future__ import annotations

from pathlib import Path

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.shipped import demo_measurement
from pruning.data.windows import Windows
from pruning.models.loading.demo import CONVERTED
from pruning.models.loading.loaded import LoadedModel
from pruning.utils.errors import SourceError


def shipped_measurement(loaded: LoadedModel, windows: Windows, seed: int) -> Measurement | None:
    """The shipped measurement where it was made of these weights on these windows; else None.

    Its loss curves were fitted to the text and nine augmentations of each window; they are taken
    whatever the recovery of a recipe is fitted to.
    """
    if not _is_embedded(loaded):
        return None
    try:
        known = demo_measurement()
    except SourceError:
        return None
    if (known.dtype, known.corpus_fingerprint, known.seed) != (
        loaded.dtype,
        windows.fingerprint,
        seed,
    ):
        return None
    same = (known.samples, known.seq_len) == tuple(windows.ids.shape)
    return known if same and windows.source == known.corpus else None


def _is_embedded(loaded: LoadedModel) -> bool:
    """Whether these are the embedded model's weights as they were measured, by their identity: the
    converted folder, and nothing behind its files (a pruned model has something there)."""
    folder = Path(loaded.identity.partition("|")[0])
    return (
        loaded.source == "demo" and folder.name == CONVERTED and "|pruned:" not in loaded.identity
    )
