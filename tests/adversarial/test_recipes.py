"""Recipes that strangers send: the one that was meant, or one short sentence, at once."""

from __future__ import annotations

import copy
import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pruning.artifacts.provenance import Provenance
from pruning.artifacts.recipe import Recipe
from pruning.cli.main import main
from pruning.presets.base import read_preset
from pruning.utils.errors import LONGEST, UsageError
from tests.helpers.fuzzing import fuzzed, memory_below, outcome


def _bomb(of: str) -> str:
    """Nine anchors, each nine times the one before: 9^9 values in some 400 bytes."""
    lines = [f"a: &a [{', '.join([of] * 9)}]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


REFUSED = {
    "aliases": (_bomb("lol"), "more than 20000 values"),
    "aliases in a field": (_bomb("1") + "\nseed: *i\n", "more than 20000 values"),
    "aliases of mappings": (_bomb("{x: 1}"), "more than 20000 values"),
    "an alias of itself": ("a: &a [*a]", "contains itself"),
    "brackets": ("seed: " + "[" * 3000, "nested more than 20 levels"),
    "closed brackets": ("seed: " + "[" * 3000 + "]" * 3000, "nested more than 20 levels"),
    "braces": ("{a: " * 3000 + "1" + "}" * 3000, "nested more than 20 levels"),
    "dashes": ("- " * 3000, "nested more than 20 levels"),
    "digits": ("seed: " + "9" * 5000, "a number of 5000 characters"),
    "digits of JSON": ('{"seed": ' + "9" * 5000 + "}", "a number of 5000 characters"),
    "many values": ("a: [" + "1, " * 25000 + "]", "more than 20000 values"),
    "size": ("# " + "x" * 300_000, "larger than 256 KiB"),
    "infinite": ("ffn: {ratio: .inf}", "ffn.ratio"),
    "infinite megabytes": ("budget: {megabytes: .inf}", "budget.megabytes"),
    "infinite seed": ("seed: .inf", "seed"),
    "no number": ("ffn: {ratio: .nan}", "ffn.ratio"),
    "a date": ("seed: 2024-01-01", "seed"),
    "a wrong date": ("seed: 2024-13-45", "seed"),
    "a time": ("calibration: {samples: 1:30}", "calibration.samples"),
    "true": ("seed: true", "true and false"),
    "yes": ("calibration: {samples: yes}", "true and false"),
    "true among heads": ("marks: {0: {keep: [true]}}", "true and false"),
    "a block called true": ("by_hand: {true: {ffn: 0.5}}", "whole numbers"),
    "a block twice": ("by_hand: {1: {ffn: 0.5}, '1': {ffn: 0.1}}", "twice"),
    "a block twice, with a nought": ("by_hand: {1: {ffn: 0.5}, '01': {ffn: 0.1}}", "twice"),
    "a key twice": (
        "seed: 1\nffn: {ratio: 0.1}\nseed: 2",
        "'seed' is there twice (again in line 3)",
    ),
    "an inner key twice": ("ffn: {ratio: 0.1, ratio: 0.9}", "'ratio' is there twice"),
    "a section twice": ("ffn: {ratio: 0.1}\nffn: {multiple: 8}", "'ffn' is there twice"),
    "JSON keys twice": ('{"seed": 1, "seed": 2}', "'seed' is there twice"),
    "empty": ("", "empty"),
    "comments alone": ("# nothing\n", "empty"),
    "null": ("~", "empty"),
    "a list": ("[1, 2]", "not a mapping"),
    "a word": ("hello", "not a mapping"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "not valid YAML"),
    "a tag": ("seed: !!python/object/apply:os.system ['true']", "not valid YAML"),
    "an empty integer": ("seed: !!int ''", "not valid YAML"),
    "a wrong boolean": ("seed: !!bool 'x'", "not valid YAML"),
    "a wrong float": ("seed: !!float 'x'", "not valid YAML"),
    "a list as a key": ("? [1, 2]\n: 3", "a list or a mapping"),
    "a long name": ("heads: {score: " + "x" * 100_000 + "}", "heads.score"),
    "a long key": ("x" * 900 + ": 1", "Extra inputs"),
    "a NUL": ('model: {source: "a\\0b"}', "control characters"),
    "half a pair": ('model: {source: "\\ud800"}', "model.source"),
    "an escape": ('heads: {score: "\\e[31mred"}', "heads.score"),
    "a version": ("version: " + "[1, " * 10 + "]" * 10, "version"),
    "not text": (b"\xff\xfe\x00", "not UTF-8 text (byte 0)"),
    "control characters": ("seed: \x01", "not valid YAML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_recipe_that_is_refused(name):
    text, word = REFUSED[name]
    sentence = outcome(lambda: Recipe.from_yaml(text), UsageError)
    assert isinstance(sentence, str) and word in sentence, sentence


READ = {
    "exponents": ("recovery: {damping: 1e-3}", lambda r: r.recovery.damping, 1e-3),
    "underscores": ("seed: 1_000", lambda r: r.seed, 1000),
    "a leading nought is decimal": ("seed: 010", lambda r: r.seed, 10),
    "hexadecimal": ("seed: 0x10", lambda r: r.seed, 16),
    "an anchor": ("by_hand: {1: &a {ffn: 0.5}, 2: *a}", lambda r: r.by_hand[2].ffn, 0.5),
    "a merge": (
        "by_hand: {1: &a {ffn: 0.5}, 2: {<<: *a, ffn: 0.25}}",
        lambda r: r.by_hand[2].ffn,
        0.25,
    ),
    "JSON": ('{"by_hand": {"3": {"heads": 0.5}}}', lambda r: r.by_hand[3].heads, 0.5),
    "a byte order mark": (b"\xef\xbb\xbfseed: 5", lambda r: r.seed, 5),
    "a switch": ("budget: {spare_heads: yes}", lambda r: r.budget.spare_heads, True),
    "a date as a name": ("model: {source: 2024-01-01}", lambda r: r.model.source, "2024-01-01"),
}


@pytest.mark.parametrize("name", READ)
def test_a_recipe_that_is_read_as_it_was_meant(name):
    text, get, value = READ[name]
    assert get(Recipe.from_yaml(text)) == value


def test_four_hundred_bytes_of_aliases_take_milliseconds(tmp_path, capsys):
    text = _bomb("x")
    assert len(text) < 450
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    started = time.process_time()
    for read in (Recipe.read, Provenance.read, read_preset):
        with pytest.raises(UsageError), memory_below(10):
            read(path)
    assert time.process_time() - started < 0.5
    command = ["prune", "demo", "--recipe", str(path), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and len(line) < LONGEST + 20
    assert [each.name for each in tmp_path.iterdir()] == ["recipe.yaml"]


FULL = yaml.safe_load(Recipe().to_yaml()) | {
    "by_hand": {0: {"heads": 0.5, "ffn": 0.5}},
    "marks": {1: {"keep": [0], "drop": [1, 2]}},
}
_PLACES = [(name,) for name in FULL] + [
    (name, field)
    for name, section in FULL.items()
    if isinstance(section, dict)
    for field in section
]
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 2)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["auto", "1e400", "0x1", "9" * 5000, "all", "\ud800", "\0", "a" * 3000])
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner)
    ),
    max_leaves=8,
)


@fuzzed(250)
@given(st.lists(st.tuples(st.sampled_from(_PLACES), _values), min_size=1, max_size=3))
def test_fuzz_values(changes):
    data = copy.deepcopy(FULL)
    for place, value in changes:
        inside = data
        for key in place[:-1]:
            inside = inside[key] if isinstance(inside.get(key), dict) else {}
        inside[place[-1]] = value
    found = outcome(lambda: Recipe.parse(data), UsageError)
    if isinstance(found, Recipe):
        assert Recipe.from_yaml(found.to_yaml()) == found
        assert Recipe.parse(json.loads(json.dumps(found.model_dump()))) == found


_TEXT = Recipe.parse(FULL).to_yaml()
_pieces = st.sampled_from(
    [
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "&a ",
        "*a",
        "!!int ",
        "!!set ",
        "<<: ",
        "\n",
        "  ",
        "? ",
        "| ",
    ]
    + [
        "'",
        '"',
        "#",
        "---\n",
        ".inf",
        "9" * 60,
        "\ufeff",
        "\t",
        "%YAML 9.9\n",
        "true",
        "2024-99-99",
    ]
)


@fuzzed(150)
@given(
    st.lists(
        st.tuples(st.integers(0, len(_TEXT)), st.integers(0, 30), _pieces | st.text(max_size=4)),
        min_size=1,
        max_size=4,
    )
)
def test_fuzz_text(edits):
    text = _TEXT
    for place, removed, added in edits:
        text = text[:place] + added + text[place + removed :]
    found = outcome(lambda: Recipe.from_yaml(text), UsageError)
    assert isinstance(found, Recipe | str)


@fuzzed(150)
@given(st.lists(_pieces, max_size=60).map("".join) | st.binary(max_size=80))
def test_fuzz_anything(text):
    assert isinstance(outcome(lambda: Recipe.from_yaml(text), UsageError), Recipe | str)
