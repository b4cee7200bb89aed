"""Folders that others make, replace or take away at the same moment."""

from __future__ import annotations

import os

import pytest

from pruning.utils import atomic_dir
from pruning.utils.atomic_dir import written_aside
from pruning.utils.errors import HeadroomError


def write(target, text: str, **options) -> None:
    with written_aside(target, **options) as folder:
        (folder / "weights").write_text(text)


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_newer_of_two_that_replace_a_folder_at_once_wins(tmp_path, monkeypatch):
    target, real, moves = tmp_path / "model", os.rename, []
    write(target, "earlier")

    def rename(source, place):
        real(source, place)
        if source == target and not moves:  # out of the way, and another process is quicker
            moves.append(place)
            target.mkdir()
            (target / "weights").write_text("other")

    monkeypatch.setattr(atomic_dir.os, "rename", rename)
    write(target, "ours")
    assert moves and (target / "weights").read_text() == "ours"
    assert names(tmp_path) == {"model"}


def test_the_earlier_folder_comes_back_where_the_new_one_cannot_be_moved(tmp_path, monkeypatch):
    target, real = tmp_path / "model", os.rename
    write(target, "earlier")

    def rename(source, place):
        if place == target and ".headroom-was" not in str(source) and not target.exists():
            raise OSError(5, "Input/output error")
        real(source, place)

    monkeypatch.setattr(atomic_dir.os, "rename", rename)
    with pytest.raises(HeadroomError, match="Input/output error"):
        write(target, "new")
    assert (target / "weights").read_text() == "earlier"
    assert names(tmp_path) == {"model"}


def test_what_another_process_made_meanwhile_may_stay(tmp_path):
    target = tmp_path / "converted"
    with written_aside(target, stays=(target / "weights").is_file) as folder:
        (folder / "weights").write_text("ours")
        write(target, "theirs")
    assert (target / "weights").read_text() == "theirs"
    assert names(tmp_path) == {"converted"}
