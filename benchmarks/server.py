"""The app as a user starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"


@contextmanager
def server(
    script: str | Path = ROOT / "app" / "main.py",
    environment: dict[str, str] | None = None,
    log: str | Path = os.devnull,
    folder: Path = ROOT,
    **options: Any,
) -> Iterator[tuple[str, int, float]]:
    """A fresh server that loads no model by itself, unless ``environment`` says otherwise: its
    address, process id and the moment it began to answer (epoch). ``folder``: where it is started;
    ``options``: of Streamlit's ``server``."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    options = {"headless": "true", "address": HOST, "port": port, **options}
    flags = [part for name, value in options.items() for part in (f"--server.{name}", str(value))]
    command = [sys.executable, "-m", "streamlit", "run", str(script), *flags]
    variables = {"HEADROOM_PRELOAD": "0", **os.environ, **(environment or {})}
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=out, stderr=subprocess.STDOUT
        )
    address = f"http://{HOST}:{port}"
    try:
        yield address, process.pid, _up(address, process, Path(log))
    finally:
        process.terminate()
        process.wait(300)


def _up(address: str, process: subprocess.Popen, log: Path) -> float:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return time.time()
        except OSError:
            time.sleep(0.01)
    raise SystemExit(f"The server ended at once. {log.read_text()[-1000:]}")
