"""What killed processes left goes; what belongs to somebody stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pruning.utils.leftovers import sweep_dead, sweep_old


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_only_folders_of_dead_processes_go(tmp_path, gone):
    stay = [
        f"blocks-{os.getpid()}-a",
        "blocks-x-a",
        f"other-{gone}-a",
        f"blocks-{gone}",
        f"{gone}-a",
    ]
    for name in (*stay, f"blocks-{gone}-a"):
        (tmp_path / name).mkdir()
    (tmp_path / f"blocks-{gone}-file").write_text("")
    sweep_dead(tmp_path, "blocks-")
    assert names(tmp_path) == {*stay, f"blocks-{gone}-file"}


def test_only_old_folders_go(tmp_path):
    for name in ("old", "kept", "new", "written"):
        (tmp_path / name).mkdir()
    (tmp_path / "written" / "file").write_text("")
    long_ago = time.time() - 100
    for name in ("old", "kept", "written"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    sweep_old(tmp_path, 50, keep={tmp_path / "kept"})
    assert names(tmp_path) == {"kept", "new", "written"}
    sweep_old(tmp_path / "absent", 50)
