"""What the READMEs tell a reader to type is run, or is a target that exists."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from pruning import registries
from pruning.artifacts.recipe import Recipe
from tests.helpers import PATIENCE, ROOT
from tests.helpers.readmes import README, blocks, command_lines

ENGINE = ROOT / "pruning" / "README.md"
APP = ROOT / "app" / "README.md"
BENCHMARKS = ROOT / "benchmarks" / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def test_every_command_is_of_a_known_kind():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = [words for words in command_lines(README) if words[0] == "make"]
    assert made and all(words[1] in targets for words in made)
    assert {words[0] for words in command_lines(README)} == {"make", "headroom"}


def test_the_recipe_of_the_readme_is_one():
    (example,) = [block for block in blocks(README) if block.words == "yaml"]
    recipe = Recipe.from_yaml(example.text)
    assert recipe.heads.threshold == 0.1 and recipe.blocks.start == 3


@pytest.mark.parametrize(
    "block",
    [block for block in blocks(ENGINE) if block.words.startswith("python file=pruning")],
    ids=lambda block: block.words.rpartition("/")[2],
)
def test_the_files_that_add_something_add_it(block, monkeypatch):
    kind = "criteria" if "/criteria/" in block.words else "families"
    registry, name = registries.KINDS[kind], Path(block.words).stem
    known = registry.names()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    exec(compile(block.text, block.words, "exec"), {"__name__": name})
    assert set(registry.names()) - set(known) == {name}
    assert registry.entry(name).source == "an example"


def test_the_page_that_is_added_is_found_and_drawn(tmp_path, monkeypatch):
    testing = pytest.importorskip("streamlit.testing.v1")
    from app import pages

    (block,) = [b for b in blocks(ENGINE) if b.words.startswith("python file=app/views/")]
    script = tmp_path / block.words.rpartition("/")[2]
    script.write_text(block.text, encoding="utf-8")
    (page,) = pages.pages_in(tmp_path)
    assert (page.name, page.title) == ("widths", "Widths")
    monkeypatch.chdir(ROOT)
    drawn = testing.AppTest.from_file(str(script), default_timeout=PATIENCE).run()
    assert not drawn.exception and len(drawn.dataframe[0].value) == 30


def test_every_block_is_run_by_a_test():
    """Commands and Python by ``tests/pruning/cli/test_install.py``, the rest here."""
    assert {block.words for block in blocks(README)} == {"", "yaml", "python"}
    engine = [block.words for block in blocks(ENGINE)]
    assert all(words.startswith(("python file=pruning", "python file=app")) for words in engine[1:])


@pytest.mark.parametrize("words", command_lines(BENCHMARKS), ids=shlex.join)
def test_the_benchmarks_take_the_options_that_the_figures_name(words, monkeypatch, capsys):
    assert words[:2] == ["python", "-m"] and words[2].startswith("benchmarks.")
    monkeypatch.setattr(sys, "argv", [words[2], "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(words[2], run_name="__main__")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    options = [word for word in words if word.startswith("--")]
    assert all(option in said for option in options), options


@pytest.mark.parametrize(
    "path", [README, ENGINE, APP, BENCHMARKS, CONTRIBUTING], ids=lambda path: str(path.parent.name)
)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert links or path in (BENCHMARKS, ENGINE)
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
