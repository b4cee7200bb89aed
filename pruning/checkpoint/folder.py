"""A folder under its final name is always whole: it is written aside and renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.errors import HeadroomError


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; rename it when the block ends well.

    An earlier folder of the same name is replaced only then. Raises HeadroomError with one
    line when the disk is full or the place is not writable.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        os.chmod(temporary, 0o755)
        yield temporary
        _replace(temporary, target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise HeadroomError(f"The disk is full; {target} was not written.") from None
        raise HeadroomError(f"{target} cannot be written: {error.strerror or error}.") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, target: Path) -> None:
    """Rename; when another process made ``target`` meanwhile, the newer folder wins."""
    if target.exists():
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
        os.rename(target, old / "was")
        os.rename(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(temporary, target)
