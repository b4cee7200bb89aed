"""Pieces that several pages share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import streamlit as st

from app.session import state
from pruning.data.corpora.base import CORPORA, TextCorpus
from pruning.utils.errors import NeedsMeasurement
from pruning.utils.registry import Entry, Registry


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
        if state.edition() != edition:
            return
        value = stored(st.session_state[key])
        state.set_draft(**({section: {field: value}} if section else {field: value}))

    draft, edition = state.draft_recipe(), state.edition()
    st.session_state[key] = shown(getattr(getattr(draft, section) if section else draft, field))
    return widget(label, key=key, on_change=changed, **options)


def choose(label: str, registry: Registry, section: str | None, field: str, **options: Any) -> str:
    """A drafted select box over a registry: titles to choose from, summaries as help."""
    intro = options.pop("intro", "")
    return drafted(
        st.selectbox,
        label,
        section,
        field,
        options=registry.names(),
        format_func=lambda name: registry.entry(name).title,
        help=described(registry, intro),
        **options,
    )


def described(entries: Iterable[Entry], intro: str = "") -> str:
    """Help that tells what can be chosen: each with its summary, cost class and source."""
    lines = []
    for entry in entries:
        cost = f" *{entry.cost[:1].upper()}{entry.cost[1:]}.*" if entry.cost else ""
        lines.append(f"- **{entry.title}**: {entry.summary}{cost} ({entry.source})")
    return "\n\n".join(filter(None, (intro, "\n".join(lines))))


def corpus_options(
    *, texts_only: bool = False, chosen: str | None = None, first: str = ""
) -> dict[str, Any]:
    """Options of a select box over the corpora that also takes the path of a file; ``first``:
    the corpus at its top."""
    entries = [e for e in CORPORA if not texts_only or isinstance(e.value, TextCorpus)]
    names = sorted((entry.name for entry in entries), key=lambda name: name != first)
    if chosen is not None and chosen not in names:
        names.append(chosen)
    return {
        "options": names,
        "format_func": lambda name: CORPORA.entry(name).title if name in CORPORA else name,
        "accept_new_options": True,
        "help": described(
            entries,
            "Pick a corpus, or type the path of a text, JSON Lines or parquet file on the server.",
        ),
    }


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
