"""What tells one file's content from another's, for the keys of caches."""

from __future__ import annotations

import hashlib
from pathlib import Path

FULL = 1 << 30
"""Files up to this size are read whole (about a second)."""

_HEAD, _SAMPLE, _SAMPLES = 1 << 24, 1 << 18, 128


def content_key(file: Path, full: int = FULL) -> str:
    """16 hex digits of the content; of a file larger than ``full`` bytes, of its size and time,
    its first 16 MiB (where safetensors and GGUF describe every tensor) and 128 places spread over
    the rest. Raises OSError."""
    stat = file.stat()
    with file.open("rb") as opened:
        if stat.st_size <= full:
            return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
        digest = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode())
        digest.update(opened.read(_HEAD))
        for place in range(_SAMPLES):
            opened.seek(_HEAD + (stat.st_size - _HEAD) * place // _SAMPLES)
            digest.update(opened.read(_SAMPLE))
    return digest.hexdigest()[:16]
