"""Model: choose one, see what it needs, load it, measure it."""

from __future__ import annotations

import streamlit as st

from app import pages
from app.components.job_progress import outcome, watch
from app.components.recipe_fields import calibration_fields
from app.components.text import count, duration, size
from app.components.widgets import page_header, show_problem
from app.jobs import devices, tasks
from app.jobs.job import Work
from app.pages import Page
from app.session import paths, state, visitor_jobs
from pruning.artifacts.report import NAMES
from pruning.artifacts.rules import ModelChoice
from pruning.artifacts.shapes import ModelShape, footprint, full_widths

PAGE = Page("Model", ":material/deployed_code:", place=10, jobs=("estimate", "load", "measure"))

SOURCES = {
    "demo": "Embedded demo",
    "hub": "Hugging Face",
    "folder": "Local folder",
    "gguf": "GGUF file",
}
VERBS = {"estimate": "Check", "load": "Load", "measure": "Measure"}
DTYPES = {
    "": "float32, saved as stored",
    "auto": "As stored",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
}


def main() -> None:
    page_header(
        "Model",
        "Choose a model, load it, and measure it once on some text. Every other page then works "
        "from that measurement.",
    )
    show_problem()
    left, right = st.columns([5, 6], gap="large")
    with left:
        choice = choose_model()
        act(choice)
    with right:
        facts()


def choose_model() -> ModelChoice | None:
    """The widgets of a model choice; None while it is incomplete."""
    st.subheader("Source", anchor=False)
    kind = st.segmented_control(
        "Source",
        list(SOURCES),
        format_func=SOURCES.get,
        default="demo",
        required=True,
        key="model.kind",
        label_visibility="collapsed",
        persist_state="session",
    )
    source, revision = _source(kind)
    left, right = st.columns(2)
    left.selectbox(
        "Device",
        list(devices.DEVICES),
        format_func=devices.DEVICES.get,
        key="model.device",
        persist_state="session",
        help="Automatic takes a GPU when there is one.",
    )
    right.selectbox(
        "Number format",
        list(DTYPES),
        format_func=DTYPES.get,
        key="model.dtype",
        persist_state="session",
        help="What is computed in, and what a pruned model is saved in. float32 is exact and "
        "largest; bfloat16 and float16 need half the memory.",
    )
    if not source:
        return None
    dtype = st.session_state["model.dtype"] or None
    return ModelChoice(source=source, revision=revision, dtype=dtype)


def _source(kind: str) -> tuple[str, str | None]:
    if kind == "demo":
        st.markdown(
            "SmolLM2-135M-Instruct, a small real language model that is installed with Headroom. "
            "Needs no network."
        )
        return "demo", None
    if kind == "hub":
        name, revision = st.columns([2, 1])
        source = name.text_input(
            "Model id",
            placeholder="openai-community/gpt2",
            key="model.hub",
            persist_state="session",
            help="Weights must be safetensors. For gated models set HF_TOKEN in the server's "
            "environment.",
        )
        chosen = revision.text_input(
            "Revision",
            placeholder="main",
            key="model.revision",
            persist_state="session",
            help="Branch, tag or commit; empty means the newest.",
        )
        return source.strip(), chosen.strip() or None
    label = "Folder on the server" if kind == "folder" else "GGUF file on the server"
    source = st.text_input(
        label,
        key=f"model.{kind}",
        persist_state="session",
        placeholder="models/my-model" if kind == "folder" else "models/my-model.gguf",
        help=paths.inside_roots(),
    )
    return source.strip(), None


def act(choice: ModelChoice | None) -> None:
    """Buttons, the running job, and how the last one ended."""
    device = st.session_state["model.device"]
    running = visitor_jobs.active(("estimate", "load", "measure"))
    busy = running is not None
    with st.container(horizontal=True):
        check = st.button(
            "Check memory",
            icon=":material/memory:",
            disabled=busy or choice is None,
            help="Reads sizes only; loads nothing.",
        )
        load = st.button(
            "Load", icon=":material/download:", type="primary", disabled=busy or choice is None
        )
    if choice is not None and (check or load):
        start("load" if load else "estimate", choice, device)
    measuring = running is not None and running.kind == "measure"
    with st.container():  # progress right below the button that was pressed
        if busy and not measuring:
            watch(running)
        else:
            report_loading(choice)
    st.subheader("Measure", anchor=False)
    st.caption(
        "One pass over calibration text learns which heads attend alike, how large activations "
        "are, and how much each unit adds. Kept on disk, so the same measurement is instant "
        "the next time."
    )
    calibration_fields()
    measure = st.button(
        "Measure",
        icon=":material/straighten:",
        type="primary",
        disabled=busy or choice is None,
        help="Loads the chosen model first if needed.",
    )
    if measure and choice is not None:
        start("measure", choice, device)
    if measuring:
        watch(running)
    else:
        report_measuring()


def start(kind: str, choice: ModelChoice, device: str) -> None:
    """Queue the memory check, the load, or the measuring pass with the draft's calibration; paths
    outside the roots are refused."""
    recipe = state.draft_recipe().changed(model=choice.model_dump())
    store = visitor_jobs.models()

    def make() -> Work:
        paths.check_model(choice.source)
        if kind == "measure":
            paths.check_recipe(recipe)
        state.set_device(device)
        if kind == "estimate":
            # on the device's own queue: building a model's skeleton is not safe beside other work
            return tasks.estimating(choice, device)
        if kind == "load":
            return tasks.loading(store, choice, device)
        return tasks.measuring(store, recipe, device)

    request = recipe if kind == "measure" else choice
    visitor_jobs.start(kind, f"{VERBS[kind]} {choice.source}", make, device=device, request=request)


def report_loading(choice: ModelChoice | None) -> None:
    """What the last check or load of this very choice said."""
    last = visitor_jobs.latest("estimate", "load")
    if last is None or last.request != choice or last.active:
        return
    outcome(last)
    if last.status != "done":
        return
    if last.kind == "load":
        st.success(f"Loaded in {duration(last.elapsed)}. Measure it to open the other pages on it.")
    elif last.result.fits:
        st.info(last.result.sentence(), icon=":material/memory:")
    else:
        st.warning(last.result.sentence(), icon=":material/memory:")


def report_measuring() -> None:
    last = visitor_jobs.latest("measure")
    outcome(last)
    if last is not None and last.status == "done":
        st.success("Measured. All pages now show this model.")
        pages.link("heads")


def facts() -> None:
    """Facts of the model loaded last, or else of the measured one."""
    loaded = next(
        (job for job in reversed(visitor_jobs.jobs("load")) if job.status == "done"), None
    )
    newest = visitor_jobs.latest("load", "measure")
    if loaded is not None and newest is loaded:
        model: tasks.Facts = loaded.result
        facts_of(model.shape, _loaded_rows(model), state.model_name(model.source), "loaded")
        return
    measurement = state.current_measurement()
    name = state.current_model_name()
    formats = _formats(measurement.dtype, measurement.shape)
    facts_of(measurement.shape, {"Number format": formats}, name, "measured")


def _formats(dtype: str, shape: ModelShape) -> str:
    return dtype if shape.dtype == dtype else f"{dtype}, saved in {shape.dtype}"


def _loaded_rows(loaded: tasks.Facts) -> dict[str, str]:
    tokenizer = f"{loaded.tokenizer}, {loaded.vocabulary:,} entries" if loaded.tokenizer else "none"
    rows = {
        "Number format": _formats(loaded.dtype, loaded.shape),
        "Device": f"{loaded.device} ({loaded.placement})",
        "Tokenizer": tokenizer,
    }
    return {**rows, "Revision": loaded.revision} if loaded.revision else rows


def facts_of(shape: ModelShape, more: dict[str, str], name: str, status: str) -> None:
    """Sizes at a glance, then the table."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Facts", anchor=False, width="content")
        st.badge(status, color="green" if status == "loaded" else "blue")
    st.markdown(f"**{name}**")
    price = footprint(shape, full_widths(shape), context=128)
    left, middle, right = st.columns(3)
    left.metric("Parameters", count(price.parameters), border=True)
    middle.metric("Weights", size(price.bytes), border=True)
    right.metric("Blocks", len(shape.blocks), border=True)
    block = shape.blocks[0]
    rows = {
        "Architecture": f"{shape.architecture} (family {shape.family})",
        "Attention heads per block": _range(b.attention.units for b in shape.blocks),
        "Key/value heads per block": _range(b.attention.groups for b in shape.blocks),
        "Width of a head": f"{block.attention.unit_width}",
        "FFN channels per block": _range(b.ffn.units for b in shape.blocks),
        "Width of the residual stream": f"{shape.hidden_size:,}",
        "Vocabulary": f"{shape.vocab_size:,}",
        "Longest text": f"{shape.max_positions:,} tokens",
        "FLOPs per token": f"{count(price.flops_per_token)} at {price.context} tokens of context",
        **{f"Fixed: {NAMES[kind]}": reason for kind, reason in shape.fixed.items()},
        **({"Stays whole": " ".join(shape.whole)} if shape.whole else {}),
        **more,
    }
    st.table(rows, border="horizontal", hide_header=True)


def _range(values) -> str:
    """``9``, or ``6 to 9`` when blocks differ (a model that was pruned before)."""
    values = sorted(values)
    least, most = values[0], values[-1]
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


main()
