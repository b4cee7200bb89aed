"""A local text, JSON Lines or parquet file."""

from __future__ import annotations

import json
from pathlib import Path

from pruning.utils.errors import SourceError

_FIELDS = ("text", "sentence", "content", "document")


def read(path: Path) -> str:
    """Text of a file: plain files as they are, rows of ``.jsonl`` and ``.parquet`` joined with
    two line breaks. Raises SourceError in one line when it is absent, corrupt or empty."""
    path = Path(path)
    check_file(path)
    try:
        if path.suffix in (".jsonl", ".ndjson"):
            # not splitlines(): JSON strings may hold other Unicode line ends
            lines = path.read_text("utf-8").split("\n")
            rows = (json.loads(line) for line in lines if line.strip())
            text = "\n\n".join(_text_of(row, path) for row in rows)
        elif path.suffix == ".parquet":
            text = _parquet(path)
        else:
            # read as bytes first: text mode would rewrite the file's line ends
            text = path.read_bytes().decode("utf-8")
    except SourceError:
        raise
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not UTF-8 text; convert it or choose another file.") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}.") from None
    if not text.strip():
        raise SourceError(f"{path} contains no text; choose another file.")
    return text


def check_file(path: Path) -> None:
    """Raise SourceError when there is no file at ``path``, or an empty one."""
    if not path.is_file():
        raise SourceError(f"{path} is neither a corpus name nor a file; check the path.")
    if not path.stat().st_size:
        raise SourceError(f"{path} contains no text; choose another file.")


def _text_of(row: object, path: Path) -> str:
    for field in _FIELDS:
        if isinstance(row, dict) and isinstance(row.get(field), str):
            return row[field]
    raise SourceError(f"{path} has a row without a text field ({', '.join(_FIELDS)}).")


def _parquet(path: Path) -> str:
    import pandas

    table = pandas.read_parquet(path)
    for field in _FIELDS:
        if field in table.columns:
            return "\n\n".join(str(value) for value in table[field].dropna())
    raise SourceError(f"{path} has no text column ({', '.join(_FIELDS)}).")
