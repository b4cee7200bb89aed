"""What tests share: tiny models, stand-ins, steps in a browser."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

PATIENCE = 300
"""Seconds that a test waits for what must happen: a busy machine is slow, and slowness is no
failure."""
