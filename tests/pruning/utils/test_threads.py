"""Threads that wait for others sleep, before torch is there, unless somebody says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pruning.cli.main import main
from pruning.utils.threads import POLICY
from tests.helpers import ROOT


def test_a_command_says_so_and_leaves_what_is_set(monkeypatch, capsys):
    for given, found in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.setenv(POLICY, given or "")
        if given is None:
            monkeypatch.delenv(POLICY)
        with pytest.raises(SystemExit):
            main(["--version"])
        assert os.environ[POLICY] == found


def test_the_server_says_so_before_torch_is_there():
    pytest.importorskip("streamlit")
    look = f"import app.main, os, sys; print(os.environ[{POLICY!r}], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != POLICY}
    command = [sys.executable, "-c", look]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.stdout.split()[-2:] == ["PASSIVE", "False"], found.stderr
