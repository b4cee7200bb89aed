"""What tests share: tiny models, stand-ins, steps in a browser."""

from pathlib import Path

from pruning.utils.files import cache_root

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

USERS_CACHE = cache_root().resolve()
"""Where the converted embedded model is, for converting it takes long; tests have their own."""

PATIENCE = 300
"""Seconds that a test waits for what must happen: a busy machine is slow, and slowness is no
failure."""
