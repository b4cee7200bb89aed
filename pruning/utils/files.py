"""Files are written aside and renamed, so that a reader sees a whole file or none."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from pathlib import Path

from pruning.utils.errors import HeadroomError
from pruning.utils.leftovers import own_prefix, sweep_dead

_ASIDE = ".headroom-file."


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically; raises HeadroomError in one line."""
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_dead(path.parent, _ASIDE)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=own_prefix(_ASIDE))
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; give it what a plain open() would have given
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise HeadroomError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


GZIP = b"\x1f\x8b"
_SMALL, _RATIO = 2**28, 20


def most_unpacked(packed: int) -> int:
    """Bytes that ``packed`` ones may unpack to: text shrinks to a third, a bomb to a thousandth."""
    return max(_SMALL, _RATIO * packed)


def unpacked(data: bytes) -> bytes:
    """``data``, unpacked where it is gzip by its first bytes; raises OSError, EOFError and
    zlib.error where it is damaged, and ValueError where it is out of all proportion."""
    if not data.startswith(GZIP):
        return data
    most = most_unpacked(len(data))
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        text = file.read(most + 1)
    if len(text) > most:
        raise ValueError(f"it unpacks to more than {most >> 20} MiB")
    return text


def check_writable(path: Path) -> None:
    """Raise HeadroomError before long work when ``path`` could not be written after it."""
    path = Path(path)
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise HeadroomError(f"{path} cannot be written; name a file in a folder you may write to.")


def cache_root() -> Path:
    """Folder for converted models and measurements (``HEADROOM_CACHE`` overrides it)."""
    configured = os.environ.get("HEADROOM_CACHE")
    if configured:
        return Path(configured).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headroom"
