"""The offline sample: encyclopedic prose written for this project, in ``assets/sample``."""

from __future__ import annotations

from pruning.artifacts.shipped import shipped
from pruning.data.corpora.base import CORPORA, Split, TextCorpus
from pruning.utils.errors import SourceError

FOLDER = shipped("sample")


def read(split: Split) -> str:
    """Text of one split; the two share no topic. Raises SourceError when it is missing."""
    try:
        return (FOLDER / f"{split}.txt").read_text(encoding="utf-8")
    except OSError:
        raise SourceError(
            f"The sample text {FOLDER / split}.txt is missing; restore assets/ or name a text file."
        ) from None


CORPORA.add(
    "sample",
    TextCorpus(read),
    title="Offline sample",
    summary="Encyclopedic prose written for Headroom; needs no network.",
    source="assets/sample (Apache-2.0)",
)
