"""Text and tokens for calibration and evaluation, cut into windows."""

from pruning.data.corpora.base import CORPORA, Corpus, TextCorpus, TokenCorpus
from pruning.data.windows import Windows, calibration_windows, evaluation_windows

__all__ = [
    "CORPORA",
    "Corpus",
    "TextCorpus",
    "TokenCorpus",
    "Windows",
    "calibration_windows",
    "evaluation_windows",
]
