"""Text files as people have them: read as what they are, or refused in one short sentence."""

from __future__ import annotations

import gzip
import io
import json

import pandas
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pruning.data.files import read
from pruning.utils.errors import SourceError
from tests.helpers.fuzzing import fuzzed, memory_below, outcome

WORDS = "one zwei drü"
ROWS = "one\n\nzwei"
TWO = [{"id": 1, "text": "one"}, {"id": 2, "text": "zwei"}]
LINES = "\n".join(map(json.dumps, TWO))
BOM = b"\xef\xbb\xbf"


def _parquet(**columns) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def _zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def _dictionary(*values: str):
    return pyarrow.array(values).dictionary_encode()


READ = {
    "plain.txt": (WORDS, WORDS),
    "PLAIN.TXT": (WORDS, WORDS),
    "notes.md": ("# " + WORDS, "# " + WORDS),
    "no_suffix": (WORDS, WORDS),
    "bom.txt": (BOM + WORDS.encode(), WORDS),
    "bom.jsonl": (BOM + LINES.encode(), ROWS),
    "bom.json": (BOM + json.dumps(TWO).encode(), ROWS),
    "rows.jsonl": (LINES, ROWS),
    "ROWS.JSONL": (LINES, ROWS),
    "rows.ndjson": (LINES + "\n\n", ROWS),
    "crlf.jsonl": (LINES.replace("\n", "\r\n"), ROWS),
    "strings.jsonl": ('"one"\n"zwei"', ROWS),
    "array.json": (json.dumps(TWO), ROWS),
    "pretty.json": (json.dumps(TWO, indent=2), ROWS),
    "strings.json": ('["one", "zwei"]', ROWS),
    "one_row.json": ('{"text": "one"}', "one"),
    "columns.json": ('{"id": [1, 2], "text": ["one", "zwei"]}', ROWS),
    "lines.json": (LINES, ROWS),
    "lines.json.gz": (gzip.compress(LINES.encode()), ROWS),
    "lines.jsonl.zst": (_zstd(LINES.encode()), ROWS),
    "plain.txt.gz": (gzip.compress(WORDS.encode()), WORDS),
    "plain.TXT.GZ": (gzip.compress(WORDS.encode()), WORDS),
    "packed_under_a_wrong_name.txt": (gzip.compress(WORDS.encode()), WORDS),
    "not_packed.txt.gz": (WORDS, WORDS),
    "lines_under_a_wrong_name.txt": (LINES, ROWS),
    "array_under_a_wrong_name": (json.dumps(TWO), ROWS),
    "a_set.txt": ("{one, zwei}", "{one, zwei}"),
    "settings.txt": ('{"width": 3}', '{"width": 3}'),
    "null.jsonl": ('{"text": "one"}\n{"text": null}\n{"text": "zwei"}', ROWS),
    "other_field.jsonl": ('{"content": "one"}\n{"content": "zwei"}', ROWS),
    "typed.jsonl": ('{"text": 1, "content": "one"}\n{"text": 2, "content": "zwei"}', ROWS),
    "pairs.jsonl": ('{"text": "\\ud83d\\ude00"}', "\U0001f600"),
    "rows.parquet": (_parquet(id=[1, 2], text=["one", "zwei"]), ROWS),
    "ROWS.PARQUET": (_parquet(text=["one", None, "zwei"]), ROWS),
    "parquet_under_a_wrong_name.txt": (_parquet(text=["one", "zwei"]), ROWS),
    "dictionary.parquet": (_parquet(text=_dictionary("one", "zwei")), ROWS),
    "large.parquet": (_parquet(text=pyarrow.array(["one", "zwei"], "large_string")), ROWS),
    "typed.parquet": (_parquet(text=[1, 2], sentence=["one", "zwei"]), ROWS),
}

_PAIR = '{"text": "a"}\n{"text": "b \\ud800"}'
REFUSED = {
    "absent/file.txt": (None, "neither"),
    "latin.txt": (b"caf\xe9 au lait", "byte 0xe9 at place 3"),
    "latin.jsonl": (b'{"text": "caf\xe9"}', "byte 0xe9 at place 13"),
    "utf16.txt": (WORDS.encode("utf-16"), "UTF-16"),
    "utf16_be.txt": (b"\xfe\xff" + WORDS.encode("utf-16-be"), "UTF-16"),
    "utf16_bare.txt": (b"o\0n\0e\0", "NUL byte at place 1"),
    "nul.txt": (b"one\0two", "NUL byte at place 3"),
    "bom_alone.txt": (BOM, "no text"),
    "table.csv": ("id,text\n1,one", ".csv"),
    "TABLE.TSV": ("id\ttext\n1\tone", ".tsv"),
    "page.html": ("<p>one</p>", ".html"),
    "book.epub": (b"PK\x03\x04 and so on", "zip archive"),
    "paper.pdf": (b"%PDF-1.7 and so on", "a PDF"),
    "text.bz2": (b"BZh91AY&SY", "bzip2"),
    "text.xz": (b"\xfd7zXZ\x00\x00", "xz"),
    "rows.arrow": (b"ARROW1\0\0", "Arrow"),
    "model.gguf": (b"GGUF\3\0\0\0", "a model"),
    "list.jsonl": ("[1, 2]", "a list in row 1"),
    "numbers.json": ("[1, 2]", "a number in row 1"),
    "number.json": ("7", "a number in row 1"),
    "mixed.jsonl": ('{"text": "one"}\n{"text": 2}', "a number, not text, in 'text' of row 2"),
    "bool.jsonl": ('{"text": "one"}\n{"text": true}', "a boolean, not text, in 'text' of row 2"),
    "nested.jsonl": ('{"text": {"en": "one"}}', "no text field"),
    "missing.jsonl": ('{"text": "one"}\n{"body": "two"}', "no 'text' in row 2"),
    "no_field.jsonl": ('{"body": "one"}', "it has body"),
    "torn.jsonl": ('{"text": "one"}\n{"text": "tw', "line 2"),
    "not_json.jsonl": ('{"text": "one"}\n\nhello', "line 3"),
    "torn.json": ('[{"text": "one"}, ', "not JSON"),
    "not_json.json": ("hello", "not JSON"),
    "uneven.json": ('{"text": ["a", "b"], "id": [1]}', "different lengths"),
    "half.jsonl": (_PAIR, "surrogate pair (\\ud800) in row 2"),
    "deep.jsonl": ('{"text": "a"}\n' + "[" * 100_000, "line 2: it is nested too deeply"),
    "deep.json": ("[" * 100_000, "nested too deeply"),
    "digits.jsonl": ('{"text": "a", "id": ' + "9" * 5000 + "}", "line 1"),
    "broken.parquet": (b"PAR1 nothing", "parquet"),
    "named.parquet": ("hello", "parquet"),
    "bytes.parquet": (_parquet(text=[b"one", b"zwei"]), "binary, not text"),
    "integers.parquet": (_parquet(text=[1, 2]), "int64, not text"),
    "lists.parquet": (_parquet(text=[["one"], ["zwei"]]), "list"),
    "dicts.parquet": (_parquet(text=[{"en": "one"}]), "struct"),
    "dates.parquet": (_parquet(text=[pandas.Timestamp("2024-01-01")]), "timestamp"),
    "no_column.parquet": (_parquet(id=[1]), "no text column"),
    "torn.txt.gz": (gzip.compress(WORDS.encode())[:-9], "cannot be read"),
    "torn.jsonl.zst": (_zstd(LINES.encode())[:-9], "cannot be read"),
}


def _file(folder, name, content):
    path = folder / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", READ)
def test_a_file_that_is_read(tmp_path, name):
    content, text = READ[name]
    assert read(_file(tmp_path, name, content)) == text


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_refused(tmp_path, name):
    content, word = REFUSED[name]
    sentence = outcome(lambda: read(_file(tmp_path, name, content)), SourceError)
    assert word in sentence and name in sentence, sentence


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "rows.jsonl",
            '{"title": "t", "text": "no", "body": "one"}\n{"body": "zwei", "text": "no"}',
        ),
        ("rows.json", '[{"text": "no", "body": "one"}, {"text": "no", "body": "zwei"}]'),
        ("rows.parquet", _parquet(text=["no", "no"], body=["one", "zwei"])),
    ],
)
def test_a_column_is_chosen(tmp_path, name, content):
    path = _file(tmp_path, name, content)
    assert read(path, "body") == ROWS and read(path) == "no\n\nno"
    assert "absent" in outcome(lambda: read(path, "absent"), SourceError)


def test_plain_text_has_no_column(tmp_path):
    path = _file(tmp_path, "plain.txt", WORDS)
    assert "without a column 'body'" in outcome(lambda: read(path, "body"), SourceError)


@pytest.mark.parametrize("pack", [gzip.compress, _zstd])
def test_a_file_that_unpacks_to_gigabytes_is_refused(tmp_path, pack):
    path = _file(tmp_path, "bomb.txt", pack(bytes(2**20) * 300))
    with memory_below(700):
        sentence = outcome(lambda: read(path), SourceError)
    assert "256 MiB" in sentence


def test_names_of_any_kind():
    from pruning.data.windows import read_text

    for name in ("x" * 5000, "~nobody/text.txt", "a\0b.txt", "a/\ud800.txt", "/" + "d/" * 3000):
        try:
            read_text(name, "test")
        except Exception as error:
            assert type(error).__name__ in ("UsageError", "SourceError"), error
            assert len(str(error)) <= 300 and str(error).isprintable()
        else:
            raise AssertionError(name)


_rows = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "text": st.text(max_size=9) | st.none() | st.integers() | st.sampled_from(["\ud800"]),
            "content": st.text(max_size=9) | st.lists(st.text(max_size=2), max_size=2),
        },
    ),
    max_size=5,
)
_SUFFIXES = st.sampled_from([".txt", ".json", ".jsonl", ".JSONL", ".parquet", "", ".gz", ".md"])


@fuzzed(150)
@given(rows=_rows, suffix=_SUFFIXES, array=st.booleans())
def test_fuzz_rows(tmp_path_factory, rows, suffix, array):
    text = json.dumps(rows) if array else "\n".join(map(json.dumps, rows))
    path = _file(tmp_path_factory.getbasetemp(), f"rows{suffix}", text)
    found = outcome(lambda: read(path), SourceError)
    if found.startswith(("[", "{")) and suffix in (".json", ".jsonl", ".JSONL"):
        assert any(found.startswith(str(value)) for row in rows for value in row.values())
    texts = [row.get("text") for row in rows]
    if (
        suffix == ".jsonl"
        and not array
        and texts
        and all(t and t.isalnum() for t in map(_str, texts))
    ):
        assert found == "\n\n".join(texts)


def _str(value):
    return value if isinstance(value, str) else None


_FILES = [content for content, _ in READ.values()]
_FILES = [each if isinstance(each, bytes) else each.encode() for each in _FILES]


@fuzzed(250)
@given(
    content=st.sampled_from(_FILES),
    suffix=_SUFFIXES,
    edits=st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 4), st.binary(max_size=4)), max_size=3
    ),
)
def test_fuzz_bytes(tmp_path_factory, content, suffix, edits):
    for place, removed, added in edits:
        place %= len(content) + 1
        content = content[:place] + added + content[place + removed :]
    folder = tmp_path_factory.getbasetemp() / "bytes"
    folder.mkdir(exist_ok=True)
    path = _file(folder, f"file{suffix}", content)
    found = outcome(lambda: read(path), SourceError)
    assert found.strip() and found.encode() and not found.startswith("\ufeff")
    path.unlink()
    assert not list(folder.iterdir())
