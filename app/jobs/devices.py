"""Devices by name, without importing torch (only worker threads may)."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from pathlib import Path

DEVICES = {"auto": "Automatic", "cpu": "CPU", "cuda": "NVIDIA GPU (cuda)", "mps": "Apple GPU (mps)"}


def queue_name(device: str) -> str:
    """The queue for a device choice. 'auto' must share the queue of what it becomes."""
    return _likely_default() if device == "auto" else device.split(":")[0]


def _likely_default() -> str:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "mps"
    try:
        cpu_only = metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        cpu_only = True
    nvidia = any(Path(node).exists() for node in ("/dev/nvidia0", "/dev/dxg"))
    return "cuda" if nvidia and not cpu_only else "cpu"
