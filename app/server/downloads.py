"""Files made on the server for one visitor to download, known by ids that cannot be guessed.

The browser takes them from a route of their own, in pieces from the disk: a model never passes
through the app's memory. An address holds an id and nothing of a path.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route
from streamlit import config

from app import settings
from pruning.utils.errors import HeadroomError
from pruning.utils.files import cache_root
from pruning.utils.leftovers import sweep_old

ADDRESS = "download"
KEEP = 2 * 60 * 60.0
"""Seconds that a file stays after it was made or last asked for."""
ENDED = (
    "<!doctype html><meta charset=utf-8><meta name=color-scheme content='light dark'>"
    "<title>Download ended</title><p style='font: 1.1rem sans-serif; margin: 3rem'>"
    "This download has ended or never was. Prepare it again on the Compare page."
)


@dataclass(frozen=True)
class Download:
    """A finished file. ``size`` in bytes."""

    id: str
    owner: str
    path: Path
    size: int
    used: float


class DownloadStore:
    """What may be downloaded: the newest file of each owner, for a while."""

    def __init__(self, folder: Path, *, keep: float = KEEP, most_bytes: float = math.inf) -> None:
        """``most_bytes``: of all files together."""
        self._folder, self.keep, self._most_bytes = folder, keep, most_bytes
        self._lock = threading.Lock()
        self._items: dict[str, Download] = {}
        self._rooms: dict[Path, int] = {}  # being made -> bytes they may take

    @contextmanager
    def room(self, needed: int) -> Iterator[Path]:
        """An empty folder to make one file in; removed with what is left in it when the block
        fails. Raises HeadroomError when ``needed`` bytes are not free or would be too many."""
        self.sweep()
        place = self._folder / secrets.token_hex(16)
        with self._lock:
            taken = sum(item.size for item in self._items.values()) + sum(self._rooms.values())
            if taken + needed > self._most_bytes:
                raise HeadroomError(
                    f"The download needs about {needed / 1e9:.2f} GB, and prepared downloads take "
                    f"{taken / 1e9:.2f} of the {self._most_bytes / 1e9:.2f} GB that this server "
                    "gives them; try again later, or choose a smaller form."
                )
            self._rooms[place] = needed
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
            if free < needed:
                raise HeadroomError(
                    f"The download needs about {needed / 1e9:.2f} GB of the server's disk for a "
                    f"while, and {free / 1e9:.2f} GB are free in its cache folder; make room "
                    "there, or save to a folder on another disk."
                )
            place.mkdir(mode=0o700)
            yield place
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise HeadroomError(
                f"The server's cache folder cannot be written: {error.strerror or error}."
            ) from None
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        finally:
            with self._lock:
                self._rooms.pop(place, None)

    def offer(self, file: Path, owner: str) -> Download:
        """Let ``file``, made in a :meth:`room`, be downloaded; the owner's earlier one ends."""
        item = Download(
            secrets.token_urlsafe(24), owner, file, file.stat().st_size, time.monotonic()
        )
        with self._lock:
            before = [old for old in self._items.values() if old.owner == owner]
            self._items[item.id] = item
        self._remove(before)
        timer = threading.Timer(self.keep + 1.0, self.sweep)
        timer.daemon = True
        timer.start()
        return item

    def find(self, name: str) -> Download | None:
        """The download of this id, or None when it has ended."""
        self.sweep()
        item = self._items.get(name)
        return item if item is not None and item.path.is_file() else None

    def touch(self, item: Download) -> None:
        """Somebody asks for it: it stays for another while."""
        with self._lock:
            if item.id in self._items:
                self._items[item.id] = replace(item, used=time.monotonic())
        with suppress(OSError):
            os.utime(item.path.parent)  # other processes with this cache folder go by that

    def sweep(self) -> None:
        """Remove what is too old, and what a server that is gone has left."""
        now = time.monotonic()
        with self._lock:
            old = [item for item in self._items.values() if now - item.used > self.keep]
            known = {*self._rooms, *(item.path.parent for item in self._items.values())}
        self._remove(old)
        sweep_old(self._folder, self.keep, known)

    def clear(self) -> None:
        """Remove everything: the server ends."""
        with self._lock:
            every = list(self._items.values())
        self._remove(every)

    def _remove(self, items: list[Download]) -> None:
        with self._lock:
            for item in items:
                self._items.pop(item.id, None)
        for item in items:
            shutil.rmtree(item.path.parent, ignore_errors=True)


@st.cache_resource(show_spinner=False)
def download_store() -> DownloadStore:
    """The one of this process."""
    limits = settings.current()
    return DownloadStore(
        cache_root() / "downloads",
        keep=60 * limits.download_minutes,
        most_bytes=limits.downloads_gb * settings.GB,
    )


def route() -> Route:
    """The address that sends a file by its id."""

    # not async: it looks at the disk, and Starlette then calls it in a thread of its own
    def send(request: Request) -> Response:
        item = download_store().find(request.path_params["name"])
        if item is None:
            return HTMLResponse(ENDED, 404, {"Cache-Control": "no-store"})
        download_store().touch(item)
        is_zip = item.path.suffix == ".zip"
        return FileResponse(
            item.path,
            filename=item.path.name,
            media_type="application/zip" if is_zip else "application/octet-stream",
            headers={
                "Cache-Control": "private, no-store",
                "X-Content-Type-Options": "nosniff",
                "Content-Encoding": "identity",  # weights hardly shrink: never gzipped on the way
            },
        )

    base = (config.get_option("server.baseUrlPath") or "").strip("/")
    return Route(f"/{base}/{ADDRESS}/{{name}}" if base else f"/{ADDRESS}/{{name}}", send)
