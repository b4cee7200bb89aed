"""Public corpora through the ``datasets`` library (no dataset scripts: parquet or JSON only)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from pruning.data.corpora.base import CORPORA, Split, TextCorpus
from pruning.utils.errors import SourceError, described
from pruning.utils.hub import is_reachable

_STREAMED_ROWS = 20_000


@dataclass(frozen=True)
class _HubCorpus:
    """Where a corpus lives and how its rows become text."""

    title: str
    path: str
    field: str
    splits: dict[Split, str]
    options: dict[str, Any]
    streamed: bool = False

    def read(self, split: Split) -> str:
        """Rows joined with two line breaks; raises SourceError when the hub cannot be reached."""
        from datasets import load_dataset

        name = self.splits[split]
        try:
            if not is_reachable():
                self._check_cached()
            rows = load_dataset(self.path, split=name, streaming=self.streamed, **self.options)
            if not self.streamed:
                return "\n\n".join(rows[self.field])
            # a corpus without a test split gives its second stretch of rows instead
            first = _STREAMED_ROWS if split == "test" and self.splits["train"] == name else 0
            taken = islice(rows, first, first + _STREAMED_ROWS)
            return "\n\n".join(row[self.field] for row in taken)
        except Exception as error:  # datasets raises many kinds; all mean: not to be had now
            raise SourceError(
                f"{self.title} could not be read from the Hugging Face hub "
                f"({described(error)}); check the network, or use the corpus "
                "'sample' or the path of a text file."
            ) from None

    def _check_cached(self) -> None:
        """Raise when no copy is on this machine: asking for one would take half a minute."""
        from datasets.load import CachedDatasetModuleFactory

        try:
            if self.streamed:
                raise FileNotFoundError
            CachedDatasetModuleFactory(self.path).get_module()
        except FileNotFoundError:
            raise ConnectionError("it does not answer, and no copy is here") from None


def _add(name: str, corpus: _HubCorpus, summary: str) -> None:
    CORPORA.add(
        name,
        TextCorpus(corpus.read),
        title=corpus.title,
        summary=summary,
        source=f"huggingface.co/datasets/{corpus.path}",
    )


_add(
    "wikitext2",
    _HubCorpus(
        "WikiText2",
        "Salesforce/wikitext",
        "text",
        {"train": "train", "test": "test"},
        {"name": "wikitext-2-raw-v1"},
    ),
    "Wikipedia articles; the field's usual yardstick.",
)
_add(
    "ptb",
    _HubCorpus(
        "Penn Treebank",
        "ptb-text-only/ptb_text_only",
        "sentence",
        {"train": "train", "test": "test"},
        {"name": "penn_treebank", "revision": "refs/convert/parquet"},
    ),
    "Newspaper sentences, lower case with <unk>.",
)
_add(
    "c4",
    _HubCorpus(
        "C4",
        "allenai/c4",
        "text",
        {"train": "train", "test": "validation"},
        {
            "data_files": {
                "train": "en/c4-train.00000-of-01024.json.gz",
                "validation": "en/c4-validation.00000-of-00008.json.gz",
            }
        },
        streamed=True,
    ),
    "Web pages (first shard, first 20,000 rows).",
)
_add(
    "bookcorpus",
    _HubCorpus(
        "BookCorpus",
        "bookcorpus/bookcorpus",
        "text",
        {"train": "train", "test": "train"},
        {"name": "plain_text", "revision": "refs/convert/parquet"},
        streamed=True,
    ),
    "Sentences from novels (first 20,000 rows; the next 20,000 for evaluation).",
)
