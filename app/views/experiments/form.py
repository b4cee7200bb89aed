"""Experiments: which one, of which model, on how much text."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.components.text import amount, duration, rounded
from app.components.widgets import corpus_options
from app.session import live_experiment, query_params, state, visitor_jobs
from app.session.live_experiment import Live
from pruning.artifacts.rules import ModelChoice
from pruning.experiments.base import EXPERIMENTS, Experiment
from pruning.experiments.request import Request, sampling_of

NAME, MODEL = "experiment.name", "experiment.model"
SIZES = {"quick": "Quick", "paper": "As in the paper"}


def fields() -> Live:
    """What the visitor wants to see."""
    model = st.selectbox(
        "Model",
        _models(),
        key=MODEL,
        format_func=state.model_name,
        accept_new_options=True,
        persist_state="session",
        on_change=query_params.keep,
        args=(MODEL, "demo"),
        help="Choose one, or type an id of the Hugging Face hub, or a folder or GGUF file on the "
        "server.",
    )
    size = st.segmented_control(
        "Amount",
        list(SIZES),
        format_func=SIZES.get,
        default="quick",
        required=True,
        key="experiment.size",
        persist_state="session",
        width="stretch",
        help="Quick: minutes for a small model, on less text than the paper; it says so in the "
        "table. As in the paper: 16 samples for scores, 1,024 for recovery, whole test texts.",
    )
    place = st.container()  # above, though what it shows depends on what is below
    request = _request(size == "quick", EXPERIMENTS[st.session_state[NAME]])
    choice = ModelChoice(source=model or "demo")
    with place:
        name = _experiment(choice, request)
    return Live(name, choice, request)


def _models() -> list[str]:
    """The embedded model, what was measured or loaded, and what the address names."""
    loaded = [job.request.source for job in visitor_jobs.jobs("load") if job.status == "done"]
    chosen = st.session_state.get(MODEL)
    names = ["demo", state.current_measurement().model, *loaded, *([chosen] if chosen else [])]
    return list(dict.fromkeys(names))


def _experiment(choice: ModelChoice, request: Request) -> str:
    """One of all experiments, each with what it will cost."""
    costs = {
        entry.name: _cost(Live(entry.name, choice, _own(request, entry.value)))
        for entry in EXPERIMENTS
    }
    return st.radio(
        "Experiment",
        EXPERIMENTS.names(),
        key=NAME,
        format_func=lambda name: EXPERIMENTS.entry(name).title,
        captions=[f"{entry.summary} {costs[entry.name]}" for entry in EXPERIMENTS],
        persist_state="session",
        on_change=query_params.keep,
        args=(NAME, EXPERIMENTS.names()[0]),
    )


def _cost(wanted: Live) -> str:
    """``33 cells, about 20 min.``"""
    experiment = EXPERIMENTS[wanted.name]
    cells = experiment.cells(wanted.request.quick)
    parts = [amount(cells, "cell")] if cells else ["one measurement"]
    time = live_experiment.seconds(wanted)
    parts += [f"about {duration(rounded(time))}"] if time is not None else []
    return f"*{', '.join(parts).capitalize()}.*"


def _own(request: Request, experiment: Experiment) -> Request:
    """``request`` without what only experiments with tasks are asked."""
    if experiment.tasks:
        return request
    return Request(
        quick=request.quick,
        texts=request.texts,
        calibration=request.calibration,
        windows=request.windows,
        seed=request.seed,
    )


def _request(quick: bool, experiment: Experiment) -> Request:
    """What is asked besides; everything that is left empty is as in the experiment."""
    usual = sampling_of(experiment, Request(quick=quick))
    with st.expander("Other text, or less of it"):
        text = st.selectbox(
            "Evaluate on",
            key="experiment.text",
            index=None,
            placeholder=", ".join(usual.texts),
            persist_state="session",
            **_corpora("experiment.text"),
        )
        calibration = st.selectbox(
            "Calibrate on",
            key="experiment.calibration",
            index=None,
            placeholder=usual.calibration,
            persist_state="session",
            **_corpora("experiment.calibration"),
        )
        left, right = st.columns(2)
        windows = _number(left, "Windows", "windows", usual.windows)
        seed = right.number_input(
            "Seed", 0, 2**31, 0, key="experiment.seed", persist_state="session"
        )
        tasks = _tasks(experiment, usual.limit) if experiment.tasks else {}
    return Request(
        quick=quick,
        texts=(text,) if text else None,
        calibration=calibration or None,
        windows=windows,
        seed=int(seed),
        **tasks,
    )


def _tasks(experiment: Experiment, usual: int | None) -> dict[str, Any]:
    """What only experiments with zero-shot tasks are asked."""
    left, right = st.columns(2, vertical_alignment="bottom")
    asked = left.checkbox("Zero-shot tasks", True, key="experiment.tasks", persist_state="session")
    limit = _number(right, "Items per task", "limit", usual)
    if not asked:
        return {"tasks": False}
    return {"limit": limit, "task_data": live_experiment.task_folder()}


def _number(place: Any, label: str, name: str, usual: int | None) -> int | None:
    found = place.number_input(
        label,
        1,
        1_000_000,
        None,
        key=f"experiment.{name}",
        placeholder="all" if usual is None else str(usual),
        persist_state="session",
    )
    return None if found is None else int(found)


def _corpora(key: str) -> dict[str, Any]:
    return corpus_options(texts_only=True, chosen=st.session_state.get(key))
