"""Links by which others watch one run of a session, read only, for as long as it is shown.

A link is an unguessable name. It leads to the decisions of one run and to the tape that says where
the presenter's picture stands, and to nothing else.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import streamlit as st

from app.jobs.job import Job
from app.session import recorded, state, visitor_jobs
from app.session.shown import Tape
from pruning.artifacts.measurement import Measurement

PARAM = "run"
UNSEEN = 180.0
"""Seconds without a page of the presenter after which a link ends: browsers let a tab in the
background speak once a minute."""
WATCHING = 10.0
"""Seconds for which a follower counts who was just there."""


@dataclass
class Link:
    """``measurement``: what the presenter's pages show, for the same picture elsewhere."""

    token: str
    owner: str
    job_id: str
    tape: Tape
    measurement: Measurement
    seen: float = field(default_factory=time.monotonic)
    watchers: dict[str, float] = field(default_factory=dict)

    def watching(self) -> int:
        """How many follow at this moment."""
        now = time.monotonic()
        return sum(now - when < WATCHING for when in list(self.watchers.values()))


class Links:
    """The links of this process, one of each session at most."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._lock = threading.Lock()

    def offer(self, owner: str, job: Job, tape: Tape, measurement: Measurement) -> Link:
        """A new link to ``job``; an earlier one of this owner ends."""
        link = Link(secrets.token_urlsafe(24), owner, job.id, tape, measurement)
        with self._lock:
            self._drop(lambda old: old.owner == owner)
            self._links[link.token] = link
        return link

    def find(self, token: str | None) -> Link | None:
        """The link of this name, unless it has ended."""
        with self._lock:
            now = time.monotonic()
            self._drop(lambda link: now - link.seen > UNSEEN)
            return self._links.get(token) if token else None

    def of(self, owner: str) -> Link | None:
        """The link of this session, which is thereby seen to be there."""
        with self._lock:
            link = next((link for link in self._links.values() if link.owner == owner), None)
            if link is not None:
                link.seen = time.monotonic()
            return link

    def end(self, owner: str) -> None:
        with self._lock:
            self._drop(lambda link: link.owner == owner)

    def watch(self, link: Link, who: str) -> None:
        """``who`` follows ``link`` at this moment; who has long gone is forgotten."""
        now = time.monotonic()
        with self._lock:
            link.watchers = {w: t for w, t in link.watchers.items() if now - t < WATCHING}
            link.watchers[who] = now

    def _drop(self, ends) -> None:
        self._links = {token: link for token, link in self._links.items() if not ends(link)}


@st.cache_resource(show_spinner=False)
def links() -> Links:
    """The one of this process."""
    return Links()


def start(job: Job, tape: Tape) -> Link:
    """Let others follow ``job`` as this session shows it."""
    return links().offer(state.owner(), job, tape, state.current_measurement())


def end() -> None:
    """Nobody follows this session any more."""
    links().end(state.owner())


def mine() -> Link | None:
    """This session's link, unless its run is gone."""
    link = links().of(state.owner())
    if link is not None and job_of(link) is None:
        end()
        return None
    return link


def followed(token: str | None) -> tuple[Link, Job] | None:
    """What a follower may see, or None: the link or its run has ended."""
    link = links().find(token)
    job = None if link is None else job_of(link)
    if link is None or job is None:
        return None
    links().watch(link, state.owner())
    return link, job


def job_of(link: Link) -> Job | None:
    """The run that a link leads to; None when it was cancelled, has failed or was forgotten."""
    if link.job_id == recorded.ID:
        return recorded.job()
    job = visitor_jobs.manager().get(link.job_id)
    return None if job is None or job.status in ("failed", "cancelled") else job


def address(link: Link) -> str:
    """What to send to others."""
    parts = urlsplit(st.context.url or "")
    folder = parts.path.rpartition("/")[0]
    query = f"follow?{PARAM}={link.token}"
    return f"{parts.scheme}://{parts.netloc}{folder}/{query}" if parts.netloc else f"/{query}"
