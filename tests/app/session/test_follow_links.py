"""Links to one run: unguessable, one of each session, gone with the presenter."""

from __future__ import annotations

import pytest

from app.session import follow_links
from app.session.follow_links import UNSEEN, WATCHING, Links
from app.session.shown import Tape


class Run:
    id = "run"


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(follow_links.time, "monotonic", lambda: now[0])
    return now


def offer(links, owner="presenter"):
    link = links.offer(owner, Run, Tape(), None)
    link.seen = follow_links.time.monotonic()
    return link


def test_a_new_link_ends_the_one_before(clock):
    links = Links()
    first, other = offer(links), offer(links, "another")
    second = offer(links)
    assert len({first.token, second.token}) == 2 and len(second.token) >= 30
    assert links.find(first.token) is None and links.find(second.token) is second
    assert links.find(other.token) is other and links.find(None) is None
    links.end("presenter")
    assert links.find(second.token) is None and links.of("presenter") is None


def test_it_ends_when_the_presenter_is_gone(clock):
    links = Links()
    link = offer(links)
    for _ in range(3):
        clock[0] += UNSEEN - 1
        assert links.of("presenter") is link  # a page of the presenter says so
    clock[0] += UNSEEN + 1
    assert links.find(link.token) is None


def test_who_follows_is_counted_while_they_are_there(clock):
    links = Links()
    link = offer(links)
    for who in ("one", "two", "one"):
        links.watch(link, who)
    assert link.watching() == 2
    clock[0] += WATCHING + 1
    links.watch(link, "three")
    assert link.watching() == 1 == len(link.watchers)
