"""A local text, JSON, JSON Lines or parquet file, plain or packed with gzip or Zstandard.

What a file is, its first bytes say before its name does. Only text is ever read as text: a column
of anything else is refused, not written out.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pruning.utils.errors import SourceError, one_line, short_repr, shortened
from pruning.utils.files import most_unpacked, unpacked

FIELDS = ("text", "sentence", "content", "document")
"""Columns that are taken, the first that holds text, when none is named."""

_ZSTD = b"\x28\xb5\x2f\xfd"
_LINES, _JSON = (".jsonl", ".ndjson"), (".json",)
_OTHERS = {
    b"PK\x03\x04": "a zip archive or an office document",
    b"%PDF": "a PDF",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ\x00": "packed with xz",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"GGUF": "a model",
}
_TABLES = (".csv", ".tsv", ".xlsx", ".html", ".htm", ".xml")
_ADVICE = "convert it to UTF-8 text, JSON Lines or parquet"


class _Refused(ValueError):
    """What is wrong with a file, as the end of a sentence that starts with its path."""


def read(path: Path, field: str | None = None) -> str:
    """Text of a file without its byte order mark: plain ones as they are, rows of the others
    joined with two line breaks. ``field``: the column of rows (None: the first of FIELDS that
    holds text). Raises SourceError in one line when the file is absent, corrupt, empty or not
    text, with the row or the byte where it is known."""
    path = Path(path)
    try:
        if not path.is_file():
            raise _Refused("is neither a corpus name nor a file; check the path")
        text = _text(path, field)
        if not text.strip():
            raise _Refused("contains no text; choose another file")
        return text
    except _Refused as refused:
        raise SourceError(f"{_shown(path)} {refused}.") from None
    except MemoryError:
        raise SourceError(f"{_shown(path)} is too large for the memory; take a part.") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SourceError(f"{_shown(path)} cannot be read: {one_line(error, 100)}.") from None


def _shown(path: Path) -> str:
    """The end of a long path, with the file's name."""
    text = str(path)
    return text if len(text) <= 120 else f"…{text[-119:]}"


def _text(path: Path, field: str | None) -> str:
    with open(path, "rb") as file:
        head = file.read(8)
    suffix = next((s for s in reversed(_suffixes(path)) if s not in (".gz", ".zst")), "")
    if head.startswith(b"PAR1"):
        return _joined(_parquet(path, field))
    if suffix == ".parquet":
        raise _Refused(f"cannot be read as parquet; {_ADVICE}")
    data = _zstd(path) if head.startswith(_ZSTD) else unpacked(path.read_bytes())
    if suffix in _TABLES:
        raise _Refused(f"is a {suffix} file; {_ADVICE}")
    text = _decoded(data)
    rows = _rows(text, suffix)
    if rows is not None:
        return _joined(_column(rows, field))
    if field is not None:
        raise _Refused(f"is plain text without a column {short_repr(field, 40)}; name none")
    return text


def check_file(path: Path) -> None:
    """Raise SourceError when there is no file at ``path``, or an empty one."""
    if not os.path.isfile(path):
        raise SourceError(f"{_shown(path)} is neither a corpus name nor a file; check the path.")
    if not path.stat().st_size:
        raise SourceError(f"{_shown(path)} contains no text; choose another file.")


def _suffixes(path: Path) -> list[str]:
    return [suffix.lower() for suffix in path.suffixes]


def _zstd(path: Path) -> bytes:
    import pyarrow

    most = most_unpacked(path.stat().st_size)
    with pyarrow.input_stream(str(path), compression="zstd") as stream:
        data: bytes = stream.read(most + 1)
    if len(data) > most:
        raise _Refused(f"unpacks to more than {most >> 20} MiB; take a part of it")
    return data


def _decoded(data: bytes) -> str:
    for magic, what in _OTHERS.items():
        if data.startswith(magic):
            raise _Refused(f"is {what}; {_ADVICE}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise _Refused(
            f"is not UTF-8 text: byte 0x{byte:02x} at place {error.start}; convert it"
        ) from None
    if "\0" in text:
        place = data.index(b"\0")
        raise _Refused(f"is not text: a NUL byte at place {place} (binary, or UTF-16); {_ADVICE}")
    return text


def _rows(text: str, suffix: str) -> list[Any] | None:
    """Rows of JSON and of JSON Lines; None for plain text."""
    if suffix in _LINES:
        return list(_lines(text))
    if suffix in _JSON:
        return _json(text)
    # under any other name it takes a whole file of objects with a text to be taken for rows
    if not text.lstrip().startswith(("{", "[{")):
        return None
    try:
        rows = _json(text)
    except _Refused:
        return None
    return rows if all(isinstance(row, dict) and row.keys() & set(FIELDS) for row in rows) else None


def _json(text: str) -> list[Any]:
    """A list of rows, one row, columns by name, or (as web corpora have it) JSON Lines."""
    try:
        whole = _parsed(text)
    except _Refused as refused:
        first = text.lstrip().partition("\n")[0]
        if not first.rstrip().endswith("}") or not first.startswith("{"):
            raise _Refused(f"is not JSON: {refused}") from None
        return list(_lines(text))
    if isinstance(whole, dict) and whole and all(isinstance(v, list) for v in whole.values()):
        longest = max(map(len, whole.values()))
        if any(len(values) != longest for values in whole.values()):
            raise _Refused("has columns of different lengths; repair it")
        return [dict(zip(whole, row, strict=True)) for row in zip(*whole.values(), strict=True)]
    return whole if isinstance(whole, list) else [whole]


def _lines(text: str) -> Iterator[Any]:
    # not splitlines(): JSON strings may hold other Unicode line ends
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield _parsed(line)
            except _Refused as refused:
                raise _Refused(f"cannot be read in line {number}: {refused}") from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column" if "\n" in text.strip() else "column"
        raise _Refused(f"{error.msg} ({place} {error.colno})") from None
    except RecursionError:
        raise _Refused("it is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise _Refused(one_line(error, 60)) from None


def _column(rows: list[Any], field: str | None) -> Iterator[str | None]:
    """Texts of ``field`` (None: the first of FIELDS that holds text wherever it is not null)."""
    if rows and field is None and all(isinstance(row, str) for row in rows):
        chosen = None
    else:
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise _Refused(
                    f"has a {_kind(row)} in row {number}, not an object with a text field"
                )
        chosen = field or _chosen(rows)
    for number, row in enumerate(rows, start=1):
        value = row if chosen is None else row.get(chosen)
        if chosen is not None and chosen not in row:
            raise _Refused(f"has no {short_repr(chosen, 40)} in row {number}")
        if value is not None and not isinstance(value, str):
            raise _Refused(
                f"has a {_kind(value)}, not text, in {short_repr(chosen, 40)} of row {number}"
            )
        if value is not None and not value.isascii():
            _check_characters(value, number)
        yield value


def _chosen(rows: list[Any]) -> str:
    for field in FIELDS:
        values = [row.get(field) for row in rows]
        if any(isinstance(value, str) for value in values):
            return field
    names = list(dict.fromkeys(name for row in rows[:100] for name in row))
    raise _Refused(_no_field("text field", names))


def _no_field(what: str, names: list[str], wanted: str | None = None) -> str:
    columns = shortened(", ".join(names), 60) or "none"
    which = short_repr(wanted, 40) if wanted else f"of the names {', '.join(FIELDS)}"
    return f"has no {what} {which} (it has {columns}); name one as text_field"


def _check_characters(value: str, row: int) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _Refused(
            f"has half a surrogate pair (\\u{ord(value[error.start]):04x}) in row {row}; "
            "write the character out"
        ) from None


def _kind(value: object) -> str:
    names = {dict: "dict", list: "list", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _parquet(path: Path, field: str | None) -> Iterator[str | None]:
    import pyarrow
    from pyarrow import parquet, types

    def is_text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    try:
        with parquet.ParquetFile(path) as file:
            kinds = {column.name: column.type for column in file.schema_arrow}
            if field is None:
                field = next((f for f in FIELDS if f in kinds and is_text(kinds[f])), None)
                field = field or next((f for f in FIELDS if f in kinds), None)
            if field not in kinds:
                raise _Refused(_no_field("text column", list(kinds), field))
            if not is_text(kinds[field]):
                kind = shortened(str(kinds[field]), 60)
                raise _Refused(
                    f"has {kind}, not text, in the column {short_repr(field, 40)}; "
                    "name another as text_field"
                )
            left = most_unpacked(path.stat().st_size)
            for batch in file.iter_batches(batch_size=1024, columns=[field]):
                left -= batch.nbytes
                if left < 0:
                    raise _Refused("unpacks to more text than its size allows; take a part of it")
                yield from batch.column(0).to_pylist()
    except pyarrow.ArrowException as error:
        raise _Refused(f"cannot be read as parquet: {one_line(error, 100)}") from None


def _joined(texts: Iterator[str | None]) -> str:
    return "\n\n".join(text for text in texts if text is not None)
