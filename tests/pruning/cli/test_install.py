"""The wheel: what it declares, and that it works where no checkout is in sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from pruning.utils.version import __version__
from tests.helpers import ROOT


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


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """``installed(*arguments)`` runs the console script of a wheel built from this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    build = ["wheel", str(ROOT), *offline, "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, *build], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", *offline, "--target", target, wheel], check=True, timeout=120)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [target / "bin" / "headroom", *map(str, arguments)],
            cwd=elsewhere,
            env=environment,
            text=True,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_an_installed_headroom_lists_and_prunes(installed, model_folder, tmp_path):
    assert installed("--version") == f"headroom {__version__}\n"
    names = {
        entry["name"] for entry in json.loads(installed("ls", "criteria", "--json"))["entries"]
    }
    assert {"flap", "second_moment"} <= names
    assert "best" in installed("ls", "presets")
    out = tmp_path / "pruned"
    result = json.loads(
        installed(
            *("prune", model_folder, "--calibration", "sample", "--samples", 4, "--seq-len", 16),
            *("--ffn-ratio", 0.3, "--evaluate", "sample", "--device", "cpu"),
            *("--out", out, "--json"),
        )
    )
    assert result["parameters_after"] < result["parameters_before"]
    assert result["perplexity_after"] > 1
    assert (out / "modeling_headroom.py").is_file() and (out / "README.md").is_file()
    again = ("evaluate", out, "--text", "sample", "--seq-len", 16, "--windows", 2, "--json")
    assert json.loads(installed(*again))["windows"] == 2
