"""Measurements on disk: written and read without loss, cached under everything that matters."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from pruning.artifacts.measurement import Measurement
from pruning.measure import measurement_key
from pruning.pipeline import measure_model
from pruning.utils.errors import SourceError
from pruning.utils.files import cache_root
from tests.helpers import ROOT, families


@pytest.fixture(scope="module")
def measured(tiny_model):
    return measure_model(tiny_model("llama_grouped"), families.recipe())


def equal(one: Measurement, other: Measurement) -> bool:
    """Equal in every field, arrays bit by bit."""
    if replace(one, blocks=()) != replace(other, blocks=()):
        return False
    pairs = list(zip(one.blocks, other.blocks, strict=True))
    return all(
        np.array_equal(a.divergence, b.divergence)
        and a.activations == b.activations
        and all(
            a.module(kind).statistics.keys() == b.module(kind).statistics.keys()
            and all(
                np.array_equal(values, b.module(kind).statistics[name])
                and b.module(kind).statistics[name].dtype == np.float32
                for name, values in a.module(kind).statistics.items()
            )
            for kind in ("attention", "ffn")
        )
        for a, b in pairs
    )


def test_json_round_trip(measured):
    again = Measurement.from_json(measured.to_json())
    assert equal(measured, again)
    assert again.to_json() == measured.to_json()
    assert json.loads(measured.to_json())["log_base"] == "e"


def test_the_embedded_models_file_is_written_again_as_it_is():
    path = ROOT / "assets" / "demo-measurement.json.gz"
    found = Measurement.read(path)
    assert found.to_json().encode() == gzip.decompress(path.read_bytes())
    arrays = [found.blocks[0].divergence, *found.blocks[0].ffn.statistics.values()]
    assert all(array.dtype == np.float32 and not array.flags.writeable for array in arrays)


@pytest.mark.parametrize("name", ["one.json", "one.json.gz"])
def test_file_round_trip(measured, tmp_path, name):
    measured.write(tmp_path / name)
    assert equal(Measurement.read(tmp_path / name), measured)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    first = (tmp_path / name).read_bytes()
    assert first[:2] == (b"\x1f\x8b" if name.endswith("gz") else b'{"')
    measured.write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == first  # no time stamp inside


def _without(text: str, *path) -> str:
    data = json.loads(text)
    place = data
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return json.dumps(data)


def _with(text: str, value, *path) -> str:
    data = json.loads(text)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: "null",
        lambda text: text.replace('"version":2', '"version":3'),
        lambda text: _without(text, "shape"),
        lambda text: _without(text, "blocks", 0, "divergence"),
        lambda text: _without(text, "blocks", 1, "activations"),
        lambda text: text.replace('"divergence":[[0.0', '"divergence":[[NaN', 1),
        lambda text: text.replace('"divergence":[[0.0', '"divergence":[["a"', 1),
        lambda text: text.replace('"divergence":[[0.0', '"divergence":[["0.0"', 1),
        lambda text: text.replace('"divergence":[[0.0', '"divergence":[[1e39', 1),
        lambda text: text.replace('"divergence":[[0.0,', '"divergence":[[', 1),
        lambda text: text.replace('"samples":', '"samples":"9","more":', 1),
        lambda text: _with(text, "3", "samples"),
        lambda text: _with(text, "v" * 1000, "version"),
        lambda text: _with(text, 1, "n" * 1000),
        lambda text: _with(text, float("nan"), "blocks", 0, "activations", "ffn", "mean"),
        lambda text: _with(text, [1.0], "blocks", 0, "ffn", "level2_sq"),
        lambda text: _with(text, [[0.0]], "blocks", 0, "divergence"),
        lambda text: _with(text, "x" * 1000, "blocks", 0, "divergence"),
        lambda text: _without(text, "blocks", 0),
        lambda text: _without(text, "version"),
    ],
)
def test_damaged_text(measured, damage):
    broken = damage(measured.to_json())
    assert broken != measured.to_json()
    with pytest.raises(SourceError) as caught:
        Measurement.from_json(broken)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300
    assert str(caught.value).endswith("; measure the model again.")


def test_damaged_files(measured, tmp_path):
    packed = tmp_path / "m.json.gz"
    measured.write(packed)
    whole = packed.read_bytes()
    for content in (whole[:200], b"no gzip at all", gzip.compress(b"\xff\xfe"), b""):
        packed.write_bytes(content)
        with pytest.raises(SourceError) as caught:
            Measurement.read(packed)
        assert "\n" not in str(caught.value) and "m.json.gz" in str(caught.value)
    with pytest.raises(SourceError, match="absent.json"):
        Measurement.read(tmp_path / "absent.json")


KEY = ("model", None, "float32", "abc", 16, 128, 0)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, "other"), (1, "main"), (2, "bfloat16"), (3, "abd"), (4, 17), (5, 64), (6, 1)],
)
def test_every_component_changes_the_key(place, value):
    changed = list(KEY)
    changed[place] = value
    assert measurement_key(*changed) != measurement_key(*KEY)
    assert measurement_key(*KEY) == measurement_key(*KEY)


def test_the_gradient_pass_changes_the_key():
    keys = [measurement_key(*KEY, gradients=g) for g in (None, (10, 64), (10, 32), (5, 64))]
    assert keys[0] == measurement_key(*KEY) and len(set(keys)) == 4


def test_the_package_version_changes_the_key(monkeypatch):
    before = measurement_key(*KEY)
    monkeypatch.setattr("pruning.measure.cache.__version__", "99")
    assert measurement_key(*KEY) != before


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """An empty cache, and how many times a model was really measured."""
    import pruning.measure.passes as passes

    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path))
    calls, real = [], passes.measure
    monkeypatch.setattr(passes, "measure", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


def test_a_second_run_reads_the_cache(tiny_model, counted):
    tiny, recipe = tiny_model("gpt2"), families.recipe()
    first = measure_model(tiny, recipe)
    second = measure_model(tiny, recipe)
    assert len(counted) == 1 and equal(first, second)
    measure_model(tiny, families.recipe(seed=1))
    measure_model(tiny, families.recipe(calibration__samples=5))
    measure_model(tiny_model("gpt2", 1), recipe)
    assert len(counted) == 4


def test_the_cache_answers_under_the_name_asked_for(tiny_model, counted):
    tiny = tiny_model("gpt2")
    measure_model(tiny, families.recipe())
    other = measure_model(replace(tiny, source="another name"), families.recipe())
    assert len(counted) == 1 and other.model == "another name"


def test_a_damaged_cache_file_is_made_anew(tiny_model, counted):
    tiny, recipe = tiny_model("gpt2"), families.recipe()
    first = measure_model(tiny, recipe)
    (file,) = (cache_root() / "measurements").iterdir()
    file.write_text(file.read_text()[:1000])
    second = measure_model(tiny, recipe)
    assert len(counted) == 2
    assert equal(replace(first, seconds=0), replace(second, seconds=0))
    assert Measurement.read(file)


def test_a_cache_that_cannot_be_written_loses_nothing(tiny_model, counted, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("HEADROOM_CACHE", str(blocked))
    assert len(measure_model(tiny_model("gpt2"), families.recipe()).blocks) == families.BLOCKS
