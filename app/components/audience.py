"""Letting others follow the run that is shown: the link, who is there, the end of it."""

from __future__ import annotations

import streamlit as st

from app.jobs.job import Job
from app.session import follow_links
from app.session.follow_links import Link
from app.session.shown import Tape


def follow_button(job: Job, tape: Tape) -> None:
    """A button that opens the link to ``job``, to be sent to others."""
    with st.popover("Follow link", icon=":material/podcasts:"):
        st.markdown(
            "Whoever opens this link sees the decisions of this run in step with you, in a browser "
            "of their own. They cannot press anything, and see nothing else of yours."
        )
        link = follow_links.mine()
        if link is None or link.job_id != job.id:
            st.button(
                "Make the link",
                key="follow.make",
                icon=":material/add_link:",
                type="primary",
                on_click=follow_links.start,
                args=(job, tape),
            )
            return
        st.code(follow_links.address(link), language=None, wrap_lines=True)
        st.caption("It ends with this session, with the run, or when you say so.")
        _end_button("popover")


def audience(link: Link) -> str:
    """``nobody follows yet``, ``3 follow``."""
    count = link.watching()
    return "nobody follows yet" if not count else f"{count} follow{'s' if count == 1 else ''}"


def _end_button(place: str) -> None:
    st.button(
        "End the link",
        key=f"follow.end.{place}",
        icon=":material/link_off:",
        on_click=follow_links.end,
    )


def audience_strip() -> None:
    """While there is a link: how many follow, and its end. It also says that the presenter is
    there."""
    if follow_links.mine() is not None:
        _strip()


@st.fragment(run_every=5.0)
def _strip() -> None:
    link = follow_links.mine()
    if link is None:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(
            f":material/podcasts: Your follow link is open: {audience(link)}.", width="content"
        )
        _end_button("strip")
