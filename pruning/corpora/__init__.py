"""Text and tokens for calibration and evaluation. One file per kind of corpus."""

from pruning.corpora.base import CORPORA, Corpus, TextCorpus, TokenCorpus
from pruning.corpora import generated, hub, random_tokens, sample  # noqa: F401  (they register)
from pruning.corpora.windows import Windows, calibration_windows, evaluation_windows

__all__ = [
    "CORPORA",
    "Corpus",
    "TextCorpus",
    "TokenCorpus",
    "Windows",
    "calibration_windows",
    "evaluation_windows",
]
