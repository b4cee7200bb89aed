"""A saved folder as one file that can be sent."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.utils.atomic_dir import file_aside

_CHUNK = 8 << 20


def move_into_zip(
    folder: Path,
    out: Path,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Path:
    """Pack ``folder``, under its own name, into the zip file ``out`` and remove it.

    Stored, not compressed: weights hardly shrink. Each file is removed once it is packed, so the
    disk holds at most the folder and its largest file. Raises HeadroomError in one line when the
    disk is full, Cancelled when asked to stop; ``out`` is then not there.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    total, done = sum(path.stat().st_size for path in files), 0
    with file_aside(out) as place, zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as packed:
        for path in files:
            entry = zipfile.ZipInfo.from_file(path, Path(folder.name, path.relative_to(folder)))
            with path.open("rb") as source, packed.open(entry, "w") as target:
                while chunk := source.read(_CHUNK):
                    stop_if(should_cancel)
                    target.write(chunk)
                    done += len(chunk)
                    progress(Progress("save", done, total, f"Packing {path.name}"))
            path.unlink()
    shutil.rmtree(folder)
    return out
