"""Digests by which contents, and results that follow from them, are found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def sha256_of(chunks: Iterable[bytes], digits: int = 64) -> str:
    """The first hex ``digits`` of the SHA-256 of all ``chunks``, one after the other."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()[:digits]


def key_of(parts: Any) -> str:
    """32 hex digits of plain data: lists, texts, numbers and dicts, whatever their order."""
    return sha256_of([json.dumps(parts, sort_keys=True).encode()], 32)
