"""The tape: where the picture of a run stands."""

from __future__ import annotations

import pytest

from app.session import shown
from app.session.shown import Tape


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    return now


def test_a_replay_goes_by_the_clock(clock):
    tape = Tape(pace=2.0, since=100.0)
    clock[0] += 1.6
    assert tape.at(10) == 3 and tape.at(2) == 2
    tape.toggle(10)
    clock[0] += 5.0
    assert tape.at(10) == 3 and not tape.playing
    tape.toggle(10)
    clock[0] += 1.0
    assert tape.at(10) == 5
    tape.put(10)
    tape.toggle(10)
    assert tape.playing and tape.at(10) == 0  # from the beginning again


def test_at_work_it_shows_the_newest_unless_held(clock):
    tape = Tape()
    assert [tape.at(length) for length in (0, 3, 7)] == [0, 3, 7]
    tape.put(7)
    assert tape.at(9) == 7
    tape.toggle(9)
    assert tape.at(9) == 9
    tape.become_replay(12)
    clock[0] += 60.0
    assert tape.at(12) == 12 and not tape.playing and tape.pace == shown.PACE
    tape.put(4, playing=True)
    tape.become_replay(12)  # it is one already
    assert tape.playing
