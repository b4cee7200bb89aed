"""The one place that touches the session: what is measured, drafted, chosen and running."""

from __future__ import annotations

import secrets
from typing import Any

import streamlit as st

from pruning.artifacts import shipped
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import ModelChoice, Recipe
from pruning.presets import with_preset
from pruning.utils.errors import HeadroomError

FIRST_PRESET = "balanced"
"""The method that a visit begins with: the best that prunes the embedded model in a minute."""

FIRST_DEVICE = "auto"

FIRST_KEPT = 0.85
"""Share of the block parameters that the first draft keeps."""

MEASUREMENT = "headroom.measurement"
_DRAFT = "headroom.draft"
_EDITION = "headroom.edition"
_BLOCK = "headroom.block"
_DEVICE = "headroom.device"
_OWNER = "headroom.owner"
_PROBLEM = "headroom.problem"


def demo_measurement() -> Measurement:
    """The committed measurement of the embedded model; shared, read only."""
    return shipped.demo_measurement()


def current_measurement() -> Measurement:
    """What every page shows: the demo until this session measures a model."""
    return st.session_state.get(MEASUREMENT) or demo_measurement()


def set_measurement(measurement: Measurement, recipe: Recipe) -> None:
    """Show ``measurement`` on every page; the draft then prunes the model it describes."""
    st.session_state[MEASUREMENT] = measurement
    blocks = recipe.blocks.model_dump()
    if (recipe.blocks.end or 0) > len(measurement.blocks):
        blocks = {"start": 0, "end": None}
    draft = draft_recipe()
    # marks are about the heads of one model
    same = draft.model.source == recipe.model.source
    st.session_state[_DRAFT] = draft.changed(
        marks={} if same else dict.fromkeys(draft.marks, {}),
        model=recipe.model.model_dump(),
        calibration=recipe.calibration.model_dump(),
        seed=recipe.seed,
        blocks=blocks,
    )
    set_block(0)


def current_model_name() -> str:
    """The measured model as people call it."""
    return model_name(current_measurement().model)


def measured_model() -> ModelChoice:
    """The measured model, as the draft loads it where it is the same."""
    measured, drafted = current_measurement(), draft_recipe().model
    if drafted.source == measured.model:
        return drafted
    dtype = None if measured.dtype == "float32" else measured.dtype  # None: likely loaded already
    return ModelChoice(source=measured.model, revision=measured.revision, dtype=dtype)


def model_name(source: str) -> str:
    """A model source as people call it."""
    return "SmolLM2-135M-Instruct (embedded demo)" if source == "demo" else source


def initial_recipe() -> Recipe:
    """A gentle first draft that fits the demo measurement, so that the preview shows something and
    a run need not measure."""
    measured = demo_measurement()
    draft = Recipe.parse(
        {
            "calibration": {
                "source": measured.corpus,
                "samples": measured.samples,
                "seq_len": measured.seq_len,
            },
            "budget": {"kept": FIRST_KEPT},
            "seed": measured.seed,
        }
    )
    return with_preset(draft, FIRST_PRESET)


def draft_recipe() -> Recipe:
    """The recipe being edited; shared by all pages of the session."""
    if _DRAFT not in st.session_state:
        st.session_state[_DRAFT] = initial_recipe()
    return st.session_state[_DRAFT]


def set_draft(**sections: Any) -> None:
    """Change the draft; a dict updates that section. An invalid change is refused with one
    sentence, which :func:`take_problem` gives to the page."""
    try:
        st.session_state[_DRAFT] = draft_recipe().changed(**sections)
    except HeadroomError as error:
        set_problem(str(error))


def replace_draft(recipe: Recipe) -> None:
    """Edit ``recipe`` from now on (an uploaded one, or that of a run)."""
    st.session_state[_DRAFT] = recipe
    st.session_state[_EDITION] = edition() + 1


def edition() -> int:
    """How often the draft was replaced. What a widget of an earlier one still sends is not for
    this one: a browser sends all that it showed, and names what is gone as changed."""
    return st.session_state.get(_EDITION, 0)


def set_problem(sentence: str) -> None:
    """Let the page show ``sentence`` the next time it draws."""
    st.session_state[_PROBLEM] = sentence


def take_problem() -> str | None:
    """The sentence about the last refused change, once."""
    return st.session_state.pop(_PROBLEM, None)


def current_block() -> int:
    """The block that Heads and Activations have open."""
    return min(st.session_state.get(_BLOCK, 0), len(current_measurement().blocks) - 1)


def set_block(index: int) -> None:
    """Open block ``index``; out of range is clamped when read."""
    st.session_state[_BLOCK] = max(0, int(index))


def device() -> str:
    """The device that this session's work runs on."""
    return st.session_state.get(_DEVICE, FIRST_DEVICE)


def set_device(name: str) -> None:
    st.session_state[_DEVICE] = name


def owner() -> str:
    """Unguessable name of this session's jobs."""
    return st.session_state.setdefault(_OWNER, secrets.token_urlsafe(16))


def adopt(owner_id: str) -> None:
    """Take over the jobs of an earlier session (a reloaded tab)."""
    st.session_state[_OWNER] = owner_id
