"""Registries find what lies in their folder, and say which file cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from threading import Barrier, Thread

import pytest

from pruning.utils.errors import BrokenExtension, UsageError
from pruning.utils.registry import Entry, Registry
from tests.helpers import PATIENCE

ADD = "from {package}.base import TOOLS\nTOOLS.add({name!r}, {value}, {texts})\n"
TEXTS = "title='T', summary='S', source='x'"


class Folder:
    """A package of its own whose ``base`` module holds the registry ``TOOLS``."""

    def __init__(self, path: Path, package: str) -> None:
        self.path, self.package = path / package, package
        self.path.mkdir()
        self.write("__init__.py", "")
        self.write(
            "base.py",
            f"""
            from pathlib import Path
            from pruning.utils.registry import Entry, Registry

            def read(path):
                value = int(path.read_text())
                return Entry(path.stem, path.stem.title(), "", "", value)

            TOOLS = Registry(
                "tool",
                {package!r},
                group="{package}.tools",
                suffix=".txt",
                read="{package}.base:read",
            )
            """,
        )

    def write(self, name: str, text: str) -> Path:
        (self.path / name).write_text(dedent(text), encoding="utf-8")
        return self.path / name

    def add(self, name: str, value: object = 1, *, file: str = "", before: str = "") -> Path:
        text = ADD.format(package=self.package, name=name, value=value, texts=TEXTS)
        return self.write(file or f"{name}.py", before + text)

    @property
    def tools(self) -> Registry[int]:
        from importlib import import_module

        return import_module(f"{self.package}.base").TOOLS


@pytest.fixture
def folder(tmp_path, monkeypatch, request):
    package = f"registry_{abs(hash(request.node.name))}"
    monkeypatch.syspath_prepend(tmp_path)
    yield Folder(tmp_path, package)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def test_a_file_in_the_folder_is_an_entry(folder):
    where = folder.add("hammer", 3)
    folder.write("nail.txt", "4")
    folder.write("_draft.py", "raise RuntimeError('not yet')")
    assert folder.tools.names() == ["hammer", "nail"]
    assert folder.tools["hammer"] == 3 and folder.tools["nail"] == 4
    assert folder.tools.entry("hammer").origin == str(where)
    assert "hammer" in folder.tools and "saw" not in folder.tools


def test_a_file_that_comes_later_is_found_after_a_refresh(folder):
    folder.add("hammer")
    assert folder.tools.names() == ["hammer"]
    folder.add("saw")
    folder.tools.refresh()
    assert folder.tools.names() == ["hammer", "saw"]
    folder.tools.remove("saw")
    folder.tools.remove("saw")
    assert folder.tools.names() == ["hammer"]


def test_an_unknown_name_is_refused_with_the_nearest_and_all(folder):
    folder.add("hammer")
    folder.add("saw")
    with pytest.raises(UsageError) as caught:
        folder.tools["hamer"]
    message = "Unknown tool 'hamer' (did you mean 'hammer'?); choose one of: hammer, saw."
    assert str(caught.value) == message
    with pytest.raises(UsageError, match=r"^Unknown tool 'x'; choose one of: hammer, saw\.$"):
        folder.tools.entry("x")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("zinc.py", "hammmer = undefined_name", "NameError: name 'undefined_name' is not defined"),
        ("zinc.py", "def broken(:", "SyntaxError: "),
        ("zinc.py", "import no_such_module", "ModuleNotFoundError: No module named"),
        ("zinc.txt", "four", "invalid literal for int"),
    ],
)
def test_a_broken_file_is_named_in_one_sentence(folder, name, text, reason):
    folder.add("hammer")
    where = folder.write(name, text)
    for _ in range(2):
        with pytest.raises(BrokenExtension) as caught:
            folder.tools.names()
        message = str(caught.value)
        assert message.startswith(f"The tool in {where} cannot be used: {reason}")
        assert message.endswith("; repair or remove it.") and "\n" not in message


def test_a_failed_look_can_be_tried_again(folder):
    """What was registered before the failure, by modules and by data, is there once."""
    folder.add("axe")
    folder.write("bolt.txt", "2")
    saw = folder.add("saw")
    saw.write_text(saw.read_text() + "raise RuntimeError('half way')\n")
    # a module that the broken one imported in full stays; what the broken one added goes
    folder.add("file", before="")
    saw.write_text(f"import {folder.package}.file\n" + saw.read_text())
    for _ in range(2):
        with pytest.raises(BrokenExtension, match="half way"):
            "axe" in folder.tools  # noqa: B015
    folder.write("clamp.txt", "no number")
    folder.add("saw", 7)
    with pytest.raises(BrokenExtension, match="clamp"):
        folder.tools.names()
    folder.write("clamp.txt", "5")
    assert folder.tools.names() == ["axe", "bolt", "clamp", "file", "saw"]
    assert folder.tools["saw"] == 7


def test_a_name_that_is_taken_is_refused_with_both_files(folder):
    first, second = folder.add("hammer"), folder.add("hammer", file="other.py")
    with pytest.raises(BrokenExtension) as caught:
        folder.tools.names()
    message = str(caught.value)
    assert "tool 'hammer' is registered twice" in message
    assert str(first) in message and str(second) in message and "\n" not in message
    second.unlink()
    assert folder.tools.names() == ["hammer"]


def test_a_name_is_registered_once():
    tools: Registry[int] = Registry("tool")
    tools.add("hammer", 1, title="", summary="", source="")
    with pytest.raises(ValueError, match="tool 'hammer' is registered twice"):
        tools.add("hammer", 2, title="", summary="", source="")
    assert tools["hammer"] == 1


def test_order_is_by_place_and_then_by_name():
    tools: Registry[int] = Registry("tool")
    for name, place in (("c", 1), ("a", 2), ("b", 2)):
        tools.add(name, 0, title="", summary="", source="", place=place)
    tools.add("aa", 0, title="", summary="", source="")
    assert tools.names() == ["c", "a", "b", "aa"]
    assert all(isinstance(entry, Entry) for entry in tools)


def test_threads_look_at_once_and_each_file_is_imported_once(folder):
    folder.add("hammer", before="import time\ntime.sleep(0.2)\n")
    folder.add("saw")
    tools, start, seen = folder.tools, Barrier(8), []

    def look():
        start.wait()
        seen.append(tools.names())

    threads = [Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert seen == [["hammer", "saw"]] * 8


def _install(path: Path, name: str, group: str, value: str) -> None:
    """What pip leaves of a package: its metadata, with one entry point."""
    info = path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nmine = {value}\n")


def test_entry_points_of_other_packages_are_found(folder, tmp_path):
    """A module, and a package that is looked into: files of data as well."""
    folder.add("hammer")
    text = ADD.format(package=folder.package, name="laser", value=9, texts=TEXTS)
    (folder.path / "more").mkdir()
    folder.write("more/__init__.py", "")
    folder.write("more/laser.py", text)
    folder.write("more/glue.txt", "6")
    folder.write("_alone.py", text.replace("laser", "alone"))
    _install(tmp_path, "one", f"{folder.package}.tools", f"{folder.package}.more")
    _install(tmp_path, "two", f"{folder.package}.tools", f"{folder.package}._alone")
    assert folder.tools.names() == ["alone", "glue", "hammer", "laser"]
    assert folder.tools["laser"] == 9 and folder.tools["glue"] == 6


def test_an_entry_point_that_fails_is_named_with_its_package(folder, tmp_path):
    _install(tmp_path, "one", f"{folder.package}.tools", "no_such_package.tools")
    with pytest.raises(BrokenExtension) as caught:
        folder.tools.names()
    message = str(caught.value)
    assert "no_such_package.tools" in message and "package one" in message
    assert "\n" not in message
