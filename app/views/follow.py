"""Follow: a run that somebody else presents, in step and read only."""

from __future__ import annotations

import streamlit as st

from app.jobs.job import Job
from app.pages import Page
from app.session import follow_links
from app.session.follow_links import Link
from app.views.prune import stage

PAGE = Page("Follow", ":material/podcasts:", alone=True)

_ENDED = """### :material/link_off: Nothing to follow here

This link leads to no run that is being shown: its presenter has ended it, or left, or the run is
gone. Ask for a new one."""

_NO_LINK = """### :material/link_off: Nothing to follow here

Watching a run that somebody else presents takes the link to it. Whoever presents makes one by
*Follow link* on the page Present, or beside the decisions of a run on Prune."""


def main() -> None:
    token = st.query_params.get(follow_links.PARAM)
    found = follow_links.followed(token)
    if found is None:
        st.title("Follow", anchor=False)
        st.markdown(_ENDED if token else _NO_LINK)
        return
    link, job = found
    drawn = _picture(link, job)
    stage.show(job, link.tape, link.measurement, alone=True)
    _look(token, drawn)


def _picture(link: Link, job: Job) -> tuple:
    """What tells one picture of the presenter's from another."""
    frame = stage.frame_of(job, link.tape)
    return frame.step, stage.headline(job, frame, link.tape), job.check


LOOK = 0.3
"""Seconds between looks at the presenter's picture: what is new is to be here within two."""


@st.fragment(run_every=LOOK)
def _look(token: str, drawn: tuple) -> None:
    """Looks often, and draws the page again only when the picture has changed."""
    found = follow_links.followed(token)
    if found is None or _picture(*found) != drawn:
        st.rerun()


main()
