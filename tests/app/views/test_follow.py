"""Presenting a run, and following it from another session."""

from __future__ import annotations

import re

import pytest

from app import pages
from app.session import follow_links, recorded, visitor_jobs
from tests.helpers.stand_ins import at_address, button, page_file, words
from tests.helpers.waiting import wait_for


def sentence(at) -> str:
    """What the picture says."""
    (line,) = [e.proto.body for e in at.get("html") if 'role="status"' in e.proto.body]
    return re.sub(r"<[^>]*>", "", line)


def present(**query):
    return at_address(**query).switch_page(page_file("present")).run()


def follow(token: str):
    at = at_address(run=token)
    at.switch_page(page_file("follow"))
    at.query_params["run"] = token
    return at.run()


def link_of(at) -> str:
    button(at, "Make the link").click().run()
    (found,) = re.findall(r"run=([\w-]+)", at.get("code")[0].value)
    return found


@pytest.fixture
def fresh(engine):
    """No jobs and no links of other tests."""
    return engine


def test_neither_page_is_in_the_navigation():
    alone = [page.name for page in pages.every_page() if page.alone]
    assert alone == ["follow", "present"]


def test_keys_step_hold_and_let_go(fresh):
    at = present()
    assert not at.exception
    keys = {item.label: item.proto.shortcut for item in at.button if item.proto.shortcut}
    assert keys == {"Pause": "space", "Back": "left", "On": "right", "Leave": "escape"}
    events = recorded.job().events
    button(at, "Pause").click().run()
    while "Decision 0 of" not in words(at):
        button(at, "Back").click().run()
    assert sentence(at) == "Before the first cut"
    button(at, "On").click().run()
    assert f"Decision 1 of {len(events)}" in words(at)
    assert sentence(at).startswith(f"Block {events[0].block} ")
    button(at, "Play").click().run()
    assert button(at, "Pause")


def test_a_follower_sees_the_picture_and_can_press_nothing(fresh):
    at = present()
    button(at, "Pause").click().run()
    token = link_of(at)
    seen = follow(token)
    assert not seen.exception
    assert sentence(seen) == sentence(at)
    button(at, "On").click().run()
    assert sentence(seen.run()) == sentence(at)
    pressed = ("button", "download_button", "selectbox", "slider", "text_input", "page_link")
    assert not any(len(seen.get(kind)) for kind in pressed)
    assert not seen.get("arrow_data_frame")
    assert not {"job", "recipe"} & set(seen.query_params)


def test_the_link_ends_with_the_presenter_who_says_so(fresh):
    at = present()
    token = link_of(at)
    button(at, "End the link").click().run()
    assert "Nothing to follow here" in words(follow(token))
    assert "Nothing to follow here" in words(follow("guessed"))
    assert "Nothing to follow here" in words(at_address().switch_page(page_file("follow")).run())


def test_a_run_at_work_is_followed_until_it_is_cancelled(visit, engine):
    job = engine.submit()
    at = visit("present")
    token = link_of(at)
    newest = job.events[-1]
    seen = follow(token)
    assert sentence(seen).startswith(f"Block {newest.block} ") and sentence(seen) == sentence(at)
    button(at, "Pause").click().run()
    assert job.paused
    button(at, "Back").click().run()
    assert sentence(seen.run()) == sentence(at) != f"Block {newest.block} "
    button(at, "Resume").click().run()
    visitor_jobs.manager().cancel(job)
    wait_for(lambda: not job.active)
    assert "Nothing to follow here" in words(seen.run())


def test_back_to_the_recipe_ends_the_link_and_other_pages_tell_of_it(fresh):
    at = at_address().switch_page(page_file("prune")).run()
    button(at, "Play the recording").click().run()
    token = link_of(at)
    assert "Your follow link is open" in words(at.switch_page(page_file("model")).run())
    at.switch_page(page_file("prune")).run()
    button(at, "Back to the recipe").click().run()
    assert "Nothing to follow here" in words(follow(token))
    assert follow_links.links().find(token) is None


def test_present_alone_plays_the_recorded_run(fresh):
    at = present()
    assert "Decision 0 of" in words(at) and button(at, "Pause")
