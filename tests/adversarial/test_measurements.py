"""Measurement files that were changed on their way: read as they are, or refused in a sentence."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.artifacts.measurement import Measurement
from pruning.utils.errors import SourceError
from tests.helpers.fuzzing import fuzzed, memory_below, outcome
from tests.helpers.synthetic import measurement

ROOT = measurement()
TEXT = ROOT.to_json()
DATA = json.loads(TEXT)


def test_the_file_that_is_changed_is_whole():
    assert Measurement.from_json(TEXT).to_json() == TEXT


REFUSED = {
    "empty": "",
    "null": "null",
    "a list": "[]",
    "half": TEXT[: len(TEXT) // 2],
    "deep": "[" * 100_000,
    "deep in a field": json.dumps(DATA | {"version": 0}).replace(
        '"version": 0', '"version": ' + "[" * 9000
    ),
    "digits": TEXT.replace('"seed":', '"seed":' + "9" * 5000, 1),
    "a long version": json.dumps(DATA | {"version": "x" * 100_000}),
    "a version of many digits": TEXT.replace('"version":2', '"version":' + "9" * 4000, 1),
    "a long key": json.dumps(DATA | {"x" * 100_000: 1}),
    "not a number": TEXT.replace('"mean":', '"mean":NaN,"mean_":', 1),
    "infinite": json.dumps(DATA | {"seconds": float("inf")}),
    "true": json.dumps(DATA | {"samples": True}),
    "no blocks": json.dumps(DATA | {"blocks": []}),
    "another shape": json.dumps(DATA | {"shape": {}}),
    "not text": b"\xff\xfe\x00",
    "a packed half": gzip.compress(TEXT.encode())[:-20],
    "a packed bomb": gzip.compress(bytes(2**20) * 300),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_measurement_that_is_refused(tmp_path, name):
    content = REFUSED[name]
    path = tmp_path / "measurement.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with memory_below(700):
        sentence = outcome(lambda: Measurement.read(path), SourceError)
    assert isinstance(sentence, str) and "measurement" in sentence, sentence


@pytest.mark.parametrize("name", ["m.json", "m.json.gz", "M.JSON.GZ", "m"])
@pytest.mark.parametrize("packed", [True, False])
def test_packed_or_not_its_bytes_say(tmp_path, name, packed):
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if packed else TEXT.encode())
    assert Measurement.read(path).to_json() == TEXT


def _places(value, place=()):
    yield place
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value[:3]) if isinstance(value, list) else items
    for key, inner in items:
        yield from _places(inner, (*place, key))


PLACES = [place for place in _places(DATA) if place]
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from([10**400, "\ud800", "a" * 3000, -1, 0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@fuzzed(150)
@given(st.lists(st.tuples(st.sampled_from(PLACES), _values | st.just(...)), min_size=1, max_size=2))
def test_fuzz_values(changes):
    data = json.loads(TEXT)
    for place, value in changes:
        inside = data
        try:
            for key in place[:-1]:
                inside = inside[key]
            if value is ...:
                del inside[place[-1]]
            else:
                inside[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # the first change has taken the place of the second away
    found = outcome(lambda: Measurement.from_json(json.dumps(data)), SourceError)
    if isinstance(found, Measurement):
        assert Measurement.from_json(found.to_json()).to_json() == found.to_json()


@fuzzed(150)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(TEXT)), st.integers(0, 40), st.binary(max_size=4)),
        min_size=1,
        max_size=3,
    ),
    packed=st.booleans(),
)
def test_fuzz_bytes(tmp_path_factory, edits, packed):
    content = gzip.compress(TEXT.encode(), mtime=0) if packed else TEXT.encode()
    for place, removed, added in edits:
        place %= len(content) + 1
        content = content[:place] + added + content[place + removed :]
    path = tmp_path_factory.getbasetemp() / "measurement.json.gz"
    path.write_bytes(content)
    found = outcome(lambda: Measurement.read(path), SourceError)
    assert isinstance(found, Measurement | str)
    path.unlink()
