"""Parts of Compare that need work by the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app.components.job_progress import outcome, watch
from app.components.widgets import corpus_options
from app.jobs import compare_tasks, tasks
from app.jobs.queue import Job, Work
from app.session import paths, state, visitor_jobs
from pruning.utils.errors import HeadroomError

PROMPT = "The water cycle describes how water moves"


def perplexity(run: Job) -> None:
    """Both perplexities on a text of choice, with the protocol beside them."""
    st.subheader(
        "Perplexity",
        anchor=False,
        help="The exponential of the mean negative log-likelihood per token; lower is better, "
        "1 would be perfect foresight.",
    )
    text, length, windows = st.columns([2, 1, 1], vertical_alignment="bottom")
    text.selectbox(
        "Text", key="compare.corpus", index=0, persist_state="session", **_evaluation_corpora()
    )
    length.number_input(
        "Window, tokens", 2, 131072, 128, 32, key="compare.seq_len", persist_state="session"
    )
    windows.number_input(
        "Windows",
        1,
        100_000,
        16,
        8,
        key="compare.windows",
        persist_state="session",
        help="The first so many windows of the text; more are more reliable and take longer.",
    )
    job = latest("perplexity", run)
    ready = tasks.has_models(run.result)
    if start_button("Evaluate", "compare.evaluate", job, ":material/speed:", ready):
        start_on_text(run, "perplexity", "Perplexity", compare_tasks.perplexities)
    if job is not None:
        finished(job)
    scores = perplexity_pairs(run)
    if not scores:
        return
    newest = scores[-1]
    dense, pruned, ratio = st.columns(3)
    dense.metric("Dense", f"{newest.before.perplexity:.2f}", border=True)
    pruned.metric("Pruned", f"{newest.after.perplexity:.2f}", border=True)
    ratio.metric(
        "Pruned ÷ dense", f"{newest.after.perplexity / newest.before.perplexity:.3f} ×", border=True
    )
    st.caption(newest.after.protocol())
    if len(scores) > 1:
        st.dataframe(
            [
                {
                    "dense": pair.before.perplexity,
                    "pruned": pair.after.perplexity,
                    "protocol": pair.after.protocol(),
                }
                for pair in scores
            ],
            hide_index=True,
            width="stretch",
            column_config={
                name: st.column_config.NumberColumn(format="%.2f", width="small")
                for name in ("dense", "pruned")
            },
        )


def perplexity_pairs(run: Job) -> list[compare_tasks.Pair]:
    """Every perplexity of this run, the newest of each protocol, oldest first."""
    done = [job for job in visitor_jobs.jobs("perplexity") if job.request[0] == run.id]
    by_protocol: dict[str, compare_tasks.Pair] = {}
    for job in done:
        if job.status == "done":
            by_protocol.pop(job.result.after.protocol(), None)
            by_protocol[job.result.after.protocol()] = job.result
    return list(by_protocol.values())


def text_choice() -> tuple[str, int, int]:
    """Corpus, tokens per window and windows as chosen under Perplexity."""
    chosen = (st.session_state.get(f"compare.{name}") for name in ("corpus", "seq_len", "windows"))
    corpus, seq_len, windows = chosen
    return corpus or "sample", int(seq_len or 128), int(windows or 16)


def _evaluation_corpora() -> dict[str, Any]:
    options = corpus_options(texts_only=True, chosen=st.session_state.get("compare.corpus"))
    names = options["options"]
    options["options"] = ["sample", *(name for name in names if name != "sample")]
    return options


def start_on_text(run: Job, kind: str, title: str, make: Callable[..., Work]) -> None:
    """Queue ``make(run, source, seq_len, windows)`` on the chosen text, and show its progress."""
    if queue_on_text(run, kind, title, make):
        st.rerun()


def queue_on_text(run: Job, kind: str, title: str, make: Callable[..., Work]) -> bool:
    """The same without drawing again; False when the text is refused."""
    source, seq_len, windows = text_choice()
    try:
        paths.check_corpus(source)
    except HeadroomError as error:
        st.error(str(error))
        return False
    queue(run, kind, title, make(run.result, source, seq_len, windows))
    return True


def speed(run: Job) -> None:
    """Tokens per second of both."""
    st.subheader(
        "Speed",
        anchor=False,
        help="On the server's device, one text at a time. Other work on the machine slows it "
        "down, so small differences mean little.",
    )
    st.caption("Reading a prompt of 128 tokens, and writing 32 tokens one by one.")
    job = latest("speed", run)
    ready = tasks.has_models(run.result)
    if start_button("Time both", "compare.time", job, ":material/timer:", ready):
        start("speed", "Speed", compare_tasks.speeds(run.result), run)
    if job is None or not finished(job):
        return
    before, after = job.result.before, job.result.after
    for column, label, old, new in zip(
        st.columns(2),
        ("Reading", "Writing"),
        (before.prefill, before.decode),
        (after.prefill, after.decode),
        strict=True,
    ):
        column.metric(
            label,
            f"{rate(new)} tok/s",
            delta=f"{100 * (new / old - 1):+.0f}%",
            delta_description=f"dense {rate(old)}",
            border=True,
        )


def rate(value: float) -> str:
    """Tokens per second: ``7.3``, ``1,240``; whole ones would hide differences of slow models."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def text(run: Job) -> None:
    """The same prompt answered by both, side by side."""
    st.subheader("Text", anchor=False)
    words, length = st.columns([5, 1], vertical_alignment="bottom")
    prompt = words.text_input(
        "Prompt",
        PROMPT,
        key="compare.prompt",
        persist_state="session",
        max_chars=4000,
        help="Both models continue it greedily: always the likeliest next token.",
    )
    tokens = length.number_input(
        "New tokens", 1, 512, 48, 16, key="compare.tokens", persist_state="session"
    )
    job = latest("texts", run)
    ready = bool(prompt.strip()) and tasks.has_models(run.result)
    if start_button("Write", "compare.write", job, ":material/edit:", ready=ready):
        live = compare_tasks.Writing()
        task = compare_tasks.texts(run.result, prompt, int(tokens), live)
        start("texts", "Text", task, run, prompt, live)
    if job is not None and job.active:
        _writing(job)
    if job is None or not finished(job):
        return
    for column, name, written in zip(
        st.columns(2), ("Dense", "Pruned"), (job.result.before, job.result.after), strict=True
    ):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{name}** · {written.new_tokens} tokens in {written.seconds:.1f} s")
            # st.text: what a model writes must not be read as markup
            st.text(f"{job.request[1]}{written.text}", width="stretch")


@st.fragment(run_every=0.5)
def _writing(job: Job) -> None:
    """Both texts as far as they are; the finished ones take their place."""
    if not job.active:
        return  # the progress below redraws the page
    live = job.request[2]
    for column, name, pieces in zip(
        st.columns(2), ("Dense", "Pruned"), (live.before, live.after), strict=True
    ):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{name}** · writing")
            st.text(job.request[1] + "".join(list(pieces)), width="stretch")


def latest(kind: str, run: Job) -> Job | None:
    """The newest job of this kind about this run."""
    own = [job for job in visitor_jobs.jobs(kind) if job.request[0] == run.id]
    return own[-1] if own else None


def start_button(label: str, key: str, job: Job | None, icon: str, ready: bool = True) -> bool:
    busy = job is not None and job.active
    return st.button(label, key=key, icon=icon, disabled=busy or not ready)


def start(kind: str, title: str, task: Work, run: Job, *request: Any) -> None:
    """Queue work about ``run`` and show its progress."""
    queue(run, kind, title, task, *request)
    st.rerun()


def queue(run: Job, kind: str, title: str, task: Work, *request: Any) -> None:
    """Queue work about ``run``."""
    visitor_jobs.submit(kind, title, task, device=state.device(), request=(run.id, *request))


def finished(job: Job) -> bool:
    """True when there is a result; shows progress or the closing sentence otherwise."""
    if job.active:
        watch(job)
    outcome(job)
    return job.status == "done"
