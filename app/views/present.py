"""Present: a run, live or recorded, for the back of the room; by keys alone."""

from __future__ import annotations

import streamlit as st

from app import pages
from app.components.audience import audience, follow_button
from app.components.job_progress import job_line
from app.jobs.job import Job
from app.pages import Page
from app.session import follow_links, recorded, shown, state, visitor_jobs
from app.session.shown import Tape
from app.views.prune import feed, replay, stage

PAGE = Page("Present", ":material/slideshow:", alone=True)

_keys = st.components.v2.component(
    "headroom.present_keys",
    js="""
export default function ({ setTriggerValue }) {
  let typed = "", waiting = null;
  const send = () => { setTriggerValue("block", { number: Number(typed) }); typed = "" };
  const pressed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("input, textarea, [contenteditable]")) return;
    if (/^[0-9]$/.test(event.key)) {
      typed += event.key;  // a second digit may follow
      clearTimeout(waiting);
      waiting = setTimeout(send, 500);
    } else if (event.key === "f") {
      if (document.fullscreenElement) document.exitFullscreen();
      else document.documentElement.requestFullscreen();
    }
  };
  document.addEventListener("keydown", pressed);
  return () => { clearTimeout(waiting); document.removeEventListener("keydown", pressed) };
}
""",
)


def main() -> None:
    visitor_jobs.reattach()
    opened = visitor_jobs.active(("prune",)) or shown.job()
    job = opened or _any()
    if job is None:
        st.title("Present", anchor=False)
        st.markdown("There is no run to present yet: start one on Prune.")
        pages.link("prune")
        return
    tape = shown.show(job, from_start=opened is None)
    st.fragment(_screen, run_every=1.0 if job.active else replay.tick(tape))(job, tape)
    _controls(job, tape)
    _keys(key="present.digits", on_block_change=lambda: _to_block(job, tape), height=1)
    if follow_links.mine() is not None:
        st.fragment(follow_links.mine, run_every=5.0)()  # the presenter is there


def _any() -> Job | None:
    """A run to present where none is open: the newest, or the recorded one."""
    return next(iter(visitor_jobs.runs()), None) or recorded.job()


def _screen(job: Job, tape: Tape) -> None:
    """The picture, and how far it is."""
    visitor_jobs.still_here()
    length, ended = len(job.events), not job.active
    if ended and (tape.pace is None or (tape.playing and tape.at(length) == length)):
        if job.status == "done":
            tape.become_replay(length)
            tape.put(tape.at(length))
        st.rerun()  # the timer belongs to the page's run
    stage.show(job, tape, state.current_measurement(), alone=True)
    far = job_line(job) if job.active else f"Decision {tape.at(length)} of {length}"
    link = follow_links.mine()
    there = f" · {audience(link)}" if link else ""
    with st.container(key="present-line"):
        st.caption(f"{far}{there} · digits: a block · F: full screen")


def _controls(job: Job, tape: Tape) -> None:
    """What the keys do, outside of what is drawn again and again: nothing here moves."""
    with st.container(horizontal=True, vertical_alignment="center", key="present-keys"):
        if job.active:
            # a button with help is part of what shows the help, which is not on this page
            feed.pause_button(job, tape, shortcut="Space", help=None)
        else:
            st.button(
                "Pause" if tape.playing else "Play",
                key="present.play",
                icon=":material/pause:" if tape.playing else ":material/play_arrow:",
                shortcut="Space",
                on_click=tape.toggle,
                args=(len(job.events),),
            )
        for label, key, by in (("Back", "Left", -1), ("On", "Right", 1)):
            st.button(
                label, key=f"present.{key}", shortcut=key, on_click=_step, args=(job, tape, by)
            )
        follow_button(job, tape)
        if st.button("Leave", key="present.leave", icon=":material/close:", shortcut="Esc"):
            pages.switch("prune")


def _step(job: Job, tape: Tape, by: int) -> None:
    length = len(job.events)
    tape.put(min(length, tape.at(length) + by))


def _to_block(job: Job, tape: Tape) -> None:
    """Show the last decision about a block."""
    number = int(st.session_state["present.digits"]["block"]["number"])
    steps = [place for place, event in enumerate(job.events, 1) if event.block == number]
    if steps:
        tape.put(steps[-1])
    else:
        st.toast(f"Nothing is decided in block {number}.")


main()
