"""What tells one file's content from another's, for the keys of caches.

Samples would not do: one small matrix may be all that was edited, in a file of the same size whose
time was kept or set (archives, image layers and stores of packages do that). So all of a file is
read, once (one to two seconds per GB); what it came to is kept with the file's size, inode and
times. Of these the time of the last change (ctime) is the system's own: no program can set it back,
and every write moves it on.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

from pruning.utils.digest import key_of
from pruning.utils.errors import HeadroomError
from pruning.utils.files import cache_root, write_bytes

KEPT_FROM = 64 << 20
"""Bytes of a file below which reading it again costs less than it is worth to remember."""

_SETTLED = 2.0
"""Seconds since the last change before which another one could get the same time."""

_DIGITS = 16


def content_key(file: Path, kept_from: int = KEPT_FROM) -> str:
    """16 hex digits of all of the content; raises OSError."""
    with file.open("rb") as opened:
        before = os.fstat(opened.fileno())
        note = None
        if before.st_size >= kept_from and sys.platform != "win32":  # where ctime is another thing
            note = cache_root() / "digests" / key_of([str(file.absolute()), *_stamp(before)])
            if (known := _read(note)) is not None:
                return known
        key = hashlib.file_digest(opened, "sha256").hexdigest()[:_DIGITS]
        after = os.fstat(opened.fileno())
    settled = abs(time.time() - after.st_ctime) > _SETTLED
    if note is not None and settled and _stamp(after) == _stamp(before):
        try:
            write_bytes(note, key.encode())
        except HeadroomError:
            pass  # it is read again the next time
    return key


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(note: Path) -> str | None:
    try:
        text = note.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    is_key = len(text) == _DIGITS and all(letter in "0123456789abcdef" for letter in text)
    return text if is_key else None
