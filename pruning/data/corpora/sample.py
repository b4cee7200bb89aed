"""The offline sample: encyclopedic prose written for this project, in ``assets/sample``.

That folder lies beside the package in a checkout and inside it when Headroom is installed.
"""

from __future__ import annotations

from pathlib import Path

from pruning.data.corpora.base import CORPORA, Split, TextCorpus
from pruning.utils.errors import SourceError

_PACKAGE = Path(__file__).resolve().parents[2]
_PLACES = [place / "assets" / "sample" for place in (_PACKAGE, _PACKAGE.parent)]
FOLDER = next((place for place in _PLACES if place.is_dir()), _PLACES[-1])


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
