"""Caches know files by all of their content, whatever their name, size and time say."""

from __future__ import annotations

import hashlib
import os
import shutil

import pytest

from pruning.models.loading import content
from pruning.models.loading.content import content_key
from tests.adversarial import odd_models

SIZE = 40 << 20


@pytest.fixture
def settled(monkeypatch):
    """No file is too young for its digest to be kept."""
    monkeypatch.setattr(content, "_SETTLED", -1.0)


@pytest.fixture
def reads(monkeypatch):
    """How often a whole file was read."""
    counted, digest = [], hashlib.file_digest

    def counting(opened, name):
        counted.append(opened.name)
        return digest(opened, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return counted


def sparse(path, size=SIZE):
    """A large file in no time."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def edit(path, place, keeping_time=True):
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\1")
    if keeping_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size


@pytest.mark.parametrize("place", [0, SIZE // 3 + 7, SIZE - 1])
@pytest.mark.parametrize("kept_from", [0, 1 << 40])
def test_one_byte_anywhere_makes_another_file(tmp_path, settled, place, kept_from):
    file = sparse(tmp_path / "w")
    before = content_key(file, kept_from)
    assert content_key(file, kept_from) == before
    edit(file, place)
    assert content_key(file, kept_from) != before


def test_another_file_under_the_name_size_and_time(tmp_path, settled):
    file, other = sparse(tmp_path / "w"), sparse(tmp_path / "other")
    before = content_key(file, 0)
    edit(other, SIZE // 2)
    shutil.copystat(file, other)
    os.replace(other, file)
    assert content_key(file, 0) != before


def test_a_large_file_is_read_once(tmp_path, settled, reads):
    file = sparse(tmp_path / "w")
    key = content_key(file, 0)
    assert content_key(file, 0) == key and len(reads) == 1
    os.utime(file)
    assert content_key(file, 0) == key and len(reads) == 2  # the same content, read again


def test_small_files_and_young_ones_leave_no_note(tmp_path, own_cache, reads):
    file = sparse(tmp_path / "w")
    assert content_key(file) == content_key(file) == content_key(file, 0)
    assert len(reads) == 3 and not own_cache.exists()


def test_a_damaged_note_is_not_believed(tmp_path, own_cache, settled, reads):
    file = sparse(tmp_path / "w")
    key = content_key(file, 0)
    (note,) = (own_cache / "digests").iterdir()
    for damage in (b"", b"0123", b"\xff" * 16, b"G" * 16):
        note.write_bytes(damage)
        assert content_key(file, 0) == key
    assert len(reads) == 5


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch, settled):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "file"))
    file = sparse(tmp_path / "w")
    assert content_key(file, 0) == content_key(file, 0)


def test_what_was_measured_is_not_taken_for_other_weights(tmp_path):
    """A folder whose one norm was edited, at the same size and time."""
    from safetensors.torch import load_file, save_file

    import pruning
    from pruning.pipeline import measure_model
    from tests.helpers import families

    folder = odd_models.changed(tmp_path / "m", lambda _weights, _config: None)
    recipe, file = families.recipe(), folder / odd_models.WEIGHTS
    before = measure_model(pruning.load(str(folder), device="cpu"), recipe)
    stat, weights = file.stat(), load_file(file)
    weights["model.layers.2.input_layernorm.weight"][3] *= 2
    save_file(weights, file, metadata={"format": "pt"})
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    after = measure_model(pruning.load(str(folder), device="cpu"), recipe)
    (first, second) = (
        m.blocks[2].attention.statistics["input_second_moment"] for m in (before, after)
    )
    assert (first != second).any()
