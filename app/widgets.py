"""Pieces that several pages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

import pruning.corpora  # noqa: F401  (fills the registry)
from app import state, work
from app.jobs import Job
from pruning.corpora.base import CORPORA, TextCorpus
from pruning.errors import NeedsMeasurement
from pruning.registry import Registry

HOME = {
    "estimate": "model",
    "load": "model",
    "measure": "model",
    "patterns": "heads",
    "prune": "prune",
    "perplexity": "compare",
    "speed": "compare",
    "texts": "compare",
    "tokens": "compare",
    "save": "compare",
    "pack": "compare",
    "sweep": "sweeps",
    "methods": "compare",
}
"""The page that shows a kind of job in full."""


def page_header(title: str, lead: str, *, measured_model: bool = True) -> None:
    """Title, one sentence on what the page is for, and what is being looked at."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.title(title, anchor=False, width="content")
        if measured_model:
            measured = state.current_measurement()
            st.caption(
                f"**{state.current_model_name()}** · measured on {measured.corpus} "
                f"({measured.samples} × {measured.seq_len} tokens, seed {measured.seed})"
            )
    st.markdown(lead)


def drafted(
    widget: Callable[..., Any],
    label: str,
    section: str | None,
    field: str,
    *,
    shown: Callable[[Any], Any] = lambda value: value,
    stored: Callable[[Any], Any] = lambda value: value,
    **options: Any,
) -> Any:
    """A widget bound to one field of the draft recipe, in both directions.

    ``shown`` turns the recipe's value into the widget's, ``stored`` turns it back. The draft is
    the truth: other pages and uploads change it too, so the widget takes its value each time.
    """
    key = f"draft.{section or 'recipe'}.{field}.{widget.__name__}"

    def changed() -> None:
        value = stored(st.session_state[key])
        state.set_draft(**({section: {field: value}} if section else {field: value}))

    draft = state.draft_recipe()
    st.session_state[key] = shown(getattr(getattr(draft, section) if section else draft, field))
    return widget(label, key=key, on_change=changed, **options)


def choose(label: str, registry: Registry, section: str | None, field: str, **options: Any) -> str:
    """A drafted select box over a registry: titles to choose from, summaries as help."""
    lines = "\n".join(f"- **{entry.title}**: {entry.summary}" for entry in registry)
    intro = options.pop("intro", "")
    return drafted(
        st.selectbox,
        label,
        section,
        field,
        options=registry.names(),
        format_func=lambda name: registry.entry(name).title,
        help=f"{intro}\n\n{lines}".strip(),
        **options,
    )


def corpus_options(*, texts_only: bool = False, chosen: str | None = None) -> dict[str, Any]:
    """Options of a select box over the corpora that also takes the path of a file."""
    entries = [e for e in CORPORA if not texts_only or isinstance(e.value, TextCorpus)]
    lines = "\n".join(f"- **{entry.title}**: {entry.summary}" for entry in entries)
    names = [entry.name for entry in entries]
    if chosen is not None and chosen not in names:
        names.append(chosen)
    return {
        "options": names,
        "format_func": lambda name: CORPORA.entry(name).title if name in CORPORA else name,
        "accept_new_options": True,
        "help": "Pick a corpus, or type the path of a text, JSON Lines or parquet file on the "
        f"server.\n\n{lines}",
    }


def calibration_fields() -> None:
    """The draft's calibration: corpus, samples, length and seed."""
    source = state.draft_recipe().calibration.source
    drafted(st.selectbox, "Corpus", "calibration", "source", **corpus_options(chosen=source))
    samples, length, seed = st.columns(3)
    with samples:
        drafted(
            st.number_input, "Samples", "calibration", "samples",
            min_value=1, max_value=65536, step=8,
            help="Windows of text. More give steadier decisions and take longer.",
        )  # fmt: skip
    with length:
        drafted(
            st.number_input, "Tokens each", "calibration", "seq_len",
            min_value=2, max_value=131072, step=32,
            help="Length of one window in tokens; 128 is the usual choice for Llama models.",
        )  # fmt: skip
    with seed:
        drafted(
            st.number_input, "Seed", None, "seed",
            min_value=0, max_value=2**31 - 1, step=1,
            help="Decides which windows are drawn. Same recipe and seed, same result.",
        )  # fmt: skip


def needs_measurement(error: NeedsMeasurement) -> str:
    """What to do here about a measurement that lacks a pass."""
    return (
        f"{error.title} needs {error.what}, which this measurement was made without. Measure "
        "on the Model page makes it for this recipe."
    )


def show_problem() -> None:
    """The sentence about a refused change, if there is one."""
    place = st.container()  # always there: what follows must not move, or its state is lost
    problem = state.take_problem()
    if problem:
        place.error(problem)


def job_line(job: Job) -> str:
    """One line on where a job stands: its place in the queue, or its step and times."""
    if job.status == "queued":
        return f"{job.title}: {place_in_line(job)}"
    parts = [f"{job.title}: {job.track.line()}", duration(job.elapsed)]
    left = job.remaining
    if left is not None and not job.paused:
        parts.append(f"about {duration(rounded(left))} left")
    if job.cancelling:
        parts.append("stopping at the next safe point")
    elif job.paused and work.manager().others_wait(job):
        parts.append("others wait in the queue, so the work goes on")
    elif job.paused:
        parts.append("paused" if job.resting else "pausing after this module")
    return " · ".join(parts)


def place_in_line(job: Job) -> str:
    """How many jobs come first, and how long the one at work still needs."""
    ahead = work.manager().ahead(job)
    text = f"waiting, {ahead} {'job' if ahead == 1 else 'jobs'} ahead"
    first = work.manager().running_ahead(job)
    left = None if first is None else first.remaining
    return (
        text if left is None else f"{text}; the one at work needs about {duration(rounded(left))}"
    )


def rounded(seconds: float) -> float:
    """An estimate as coarse as it is sure: whole seconds to 10, then fives, then half minutes."""
    step = 1 if seconds < 10 else 5 if seconds < 60 else 30
    return max(1, step * round(seconds / step))


def cancel_button(job: Job, place: str = "") -> None:
    """Cancel, disabled once pressed; ``place`` tells two buttons of one job apart."""
    st.button(
        "Cancel",
        key=f"cancel.{job.id}.{place}",
        icon=":material/close:",
        disabled=job.cancelling,
        on_click=work.manager().cancel,
        args=(job,),
    )


@st.fragment(run_every=1.0)
def watch(job: Job, place: str = "") -> None:
    """Progress of a job with Cancel; redraws the page when it ends. ``place`` is needed where a
    page may show the same job twice."""
    work.still_here()
    if not job.active:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.progress(job.fraction, text=job_line(job), width="stretch")
        cancel_button(job, place)


def outcome(job: Job | None) -> None:
    """The closing sentence of a job that did not succeed."""
    if job is None or job.status not in ("failed", "cancelled"):
        return
    if job.status == "failed":
        st.error(job.error, icon=":material/error:")
    else:
        st.info(job.error or "Cancelled.", icon=":material/cancel:")


def job_strip(page: str) -> None:
    """On pages that do not show the running job in full: one slim line about it."""
    job = work.active()
    if job is not None and HOME.get(job.kind) != page:
        watch(job)


def duration(seconds: float) -> str:
    """``8 s``, ``2 min``, ``2 min 05 s``."""
    whole = int(seconds)
    if whole and whole % 60 == 0:
        return f"{whole // 60} min"
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def count(value: float) -> str:
    """``134.5 M``: three or four significant digits with a unit of thousands."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Bytes as ``538 MB`` (powers of ten)."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= limit:
            return f"{value / limit:.{2 if unit == 'GB' else 0}f} {unit}"
    return f"{value:.0f} B"
