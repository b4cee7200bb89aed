"""Puts the file of an extension into the folder where its registry looks, for a test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

from pruning.utils.registry import Registry

DropIn = Callable[[Registry, str, str], Path]
TEXTS = 'title="Mine", summary="Made by a test.", source="this test"'


def forget(registry: Registry, names: list[str]) -> None:
    """Take out what is not among ``names``, and let its module be imported again."""
    for entry in list(registry):
        if entry.name not in names:
            registry.remove(entry.name)
            sys.modules.pop(entry.module, None)


@pytest.fixture
def drop_in(tmp_path, monkeypatch):
    """``drop_in(registry, file, text)`` puts a file into the folder of a registry, for a test."""
    undo = []

    def put(registry: Registry, file: str, text: str) -> Path:
        package, folder = import_module(registry.package), tmp_path / registry.package
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(dedent(text).replace("TEXTS", TEXTS), encoding="utf-8")
        undo.append((registry, registry.names(), folder / file))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        registry.refresh()
        return folder / file

    yield put
    for registry, names, file in undo:
        file.unlink()
        forget(registry, names)
