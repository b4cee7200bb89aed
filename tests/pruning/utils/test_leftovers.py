"""What killed processes left goes; what belongs to somebody stays."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from pruning.utils.leftovers import own_prefix, sweep_dead, sweep_old


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_only_what_dead_processes_left_goes(tmp_path, gone):
    ours, here = own_prefix("blocks-"), f"blocks-{socket.gethostname()}"
    stay = [
        f"{ours}a",
        f"{here}.x.a",
        f"other-{here}.{gone}.a",
        f"{here}.{gone}",
        f"blocks-elsewhere.{gone}.a",
    ]
    # in a container that was started again the number is ours, the mark is not
    go = [f"{here}.{gone}.a", f"{here}.{os.getpid()}.0123abcd.a"]
    for name in (*stay, *go):
        (tmp_path / name).mkdir()
    (tmp_path / f"{here}.{gone}.file").write_text("")
    sweep_dead(tmp_path, "blocks-")
    assert names(tmp_path) == set(stay)


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
    ahead = time.time() + 100
    os.utime(tmp_path / "new", (ahead, ahead))  # the clock was set back
    sweep_old(tmp_path, 50)
    assert names(tmp_path) == {"written"}
