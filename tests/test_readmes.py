"""What the READMEs tell a reader to type is run, or is a target that exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pruning import registries
from pruning.artifacts.recipe import Recipe
from tests.helpers import PATIENCE, ROOT

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
README = ROOT / "README.md"
ENGINE = ROOT / "pruning" / "README.md"
APP = ROOT / "app" / "README.md"
BENCHMARKS = ROOT / "benchmarks" / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence and what is inside."""

    words: str
    text: str


def blocks(path: Path) -> list[Block]:
    return [Block(*match.groups()) for match in FENCE.finditer(path.read_text(encoding="utf-8"))]


def command_lines(path: Path) -> list[list[str]]:
    """The words of every line of the blocks that have no language."""
    lines = (line for block in blocks(path) if not block.words for line in block.text.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pruning.cli.main import main; "
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit(main())", *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-2000:]}"
    return done


def test_every_command_is_of_a_known_kind():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = [words for words in command_lines(README) if words[0] == "make"]
    assert made and all(words[1] in targets for words in made)
    assert {words[0] for words in command_lines(README)} == {"make", "headroom"}


@pytest.mark.slow
def test_the_commands_of_the_readme_run_one_after_the_other(tmp_path):
    commands = [words for words in command_lines(README) if words[0] == "headroom"]
    assert len(commands) >= 6
    for command in commands:
        done = run(command, tmp_path)
        assert done.stdout.strip(), command
    assert (tmp_path / "out" / "padded" / "config.json").is_file()


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = [block for block in blocks(README) if block.words == "python"]
    names: dict = {}
    exec(compile(example.text, str(README), "exec"), names)
    assert names["small"].report.kept_block_parameters <= 0.9
    assert names["again"].model.num_parameters() == names["small"].model.num_parameters()


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


def test_every_block_is_run_by_a_test_here():
    assert {block.words for block in blocks(README)} == {"", "yaml", "python"}
    engine = [block.words for block in blocks(ENGINE)]
    assert all(words.startswith(("python file=pruning", "python file=app")) for words in engine[1:])


@pytest.mark.parametrize("words", command_lines(BENCHMARKS), ids=shlex.join)
def test_the_benchmarks_take_the_options_that_the_figures_name(words):
    assert words[:2] == ["python", "-m"] and words[2].startswith("benchmarks.")
    done = subprocess.run(
        [sys.executable, "-m", words[2], "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-500:]
    options = [word for word in words if word.startswith("--")]
    assert all(option in done.stdout for option in options), options


@pytest.mark.parametrize(
    "path", [README, ENGINE, APP, BENCHMARKS, CONTRIBUTING], ids=lambda path: str(path.parent.name)
)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert links or path in (BENCHMARKS, ENGINE)
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
