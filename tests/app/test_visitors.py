"""The app under a small load, in a server of its own; ``benchmarks.visitors`` is the large one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from benchmarks import visitors
from benchmarks.streamlit_client import FRAGMENT, Tab


@pytest.mark.slow
def test_three_visitors_at_once_see_nothing_of_each_other(tmp_path):
    # where a browser was driven, the main thread has an event loop already
    with ThreadPoolExecutor(1) as apart:
        found, memory, log = apart.submit(visitors.measure, 3, 10, tmp_path, grace=0).result()
    # what a short load leaves is within the noise of a fresh process, so its memory is not judged
    assert visitors.problems(found, visitors.Memory(memory.before, 0, 0), log) == []
    assert len(found.tau) >= 3 and found.counts.keys() >= {"move"}


def test_what_must_not_be_is_said():
    found = visitors.Found(wrong=["a was sent b", "a was sent b"])
    wrong = visitors.problems(found, visitors.Memory(100, 300, 111), "x\nTraceback (most recent")
    assert wrong[0] == "a was sent b" and len(wrong) == 3
    assert visitors.problems(visitors.Found(), visitors.Memory(100, 300, 109), "") == []


def test_a_visitor_notices_what_is_anothers():
    found = visitors.Found()
    visitor = visitors.Visitor(1, 0, ["mine", "theirs"], found)
    visitor._look(b"... models/mine ...")
    assert not found.wrong
    visitor._look(b"... models/theirs ... Traceback ...")
    assert found.wrong == ["mine was sent theirs", "mine was sent a traceback"]


EARLY = [ForwardMsg(script_finished=ForwardMsg.ScriptFinishedStatus.FINISHED_EARLY_FOR_RERUN)]


@pytest.mark.parametrize("ended", [EARLY, []])
@pytest.mark.parametrize(("following", "drawn"), [(["timer"], True), ([], False)])
def test_a_fragment_that_another_one_follows_is_drawn(following, drawn, ended):
    """A whole run ends it in the middle, and draws it again. Of a fragment that ended just as the
    next was asked for, Streamlit says that it was cut short, or nothing."""
    tab = Tab(1)
    tab._awaited = "slider"
    for fragments in (["slider"], following):
        started = ForwardMsg()
        started.metadata.run.fragment_ids.extend(fragments)
        tab._take("new_session", started)
        for message in ended if fragments == ["slider"] else ():
            tab._take("script_finished", message)
    assert tab._drawn_again.is_set() is drawn


def test_a_fragment_that_begins_is_not_drawn_yet():
    tab = Tab(1)
    tab._awaited = "slider"
    ended = ForwardMsg(script_finished=FRAGMENT)
    started = ForwardMsg()
    started.metadata.run.fragment_ids.append("slider")
    for kind, message in (("new_session", started), ("script_finished", ended)):
        tab._take(kind, message)
    assert tab._drawn_again.is_set()
    tab._drawn_again.clear()  # moved again
    tab._take("new_session", started)
    assert not tab._drawn_again.is_set()
