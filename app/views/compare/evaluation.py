"""Compare: perplexity, speed and text of both models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import streamlit as st

from app.jobs import compare_tasks
from app.jobs.job import Job
from app.views.compare import questions
from app.views.compare.questions import PERPLEXITY, SPEED, TEXTS
from pruning.artifacts.comparison import Questions, is_plausible

PROMPT = Questions().prompt
_TWO_DIGITS = st.column_config.NumberColumn(format="%.2f", width="small")


def perplexity(run: Job) -> None:
    """Both perplexities on a text of choice, with the protocol beside them."""
    st.subheader(
        "Perplexity",
        anchor=False,
        help="The exponential of the mean negative log-likelihood per token; lower is better, "
        "1 would be perfect foresight.",
    )
    questions.choose_text()
    questions.ask(PERPLEXITY, run, lambda: questions.on_text(compare_tasks.perplexities, run))
    questions.answer(PERPLEXITY, run)
    scores = questions.perplexity_pairs(run)
    if not scores:
        return
    protocol, newest = list(scores.items())[-1]
    before, after = newest.before.perplexity, newest.after.perplexity
    values = {
        "Dense": f"{before:.2f}",
        "Pruned": f"{after:.2f}",
        "Pruned ÷ dense": f"{after / before:.3f} ×",
    }
    for column, (label, value) in zip(st.columns(3), values.items(), strict=True):
        column.metric(label, value, border=True)
    st.caption(protocol)
    if len(scores) > 1:
        st.dataframe(
            [
                {"dense": s.before.perplexity, "pruned": s.after.perplexity, "protocol": protocol}
                for protocol, s in scores.items()
            ],
            hide_index=True,
            width="stretch",
            column_config={"dense": _TWO_DIGITS, "pruned": _TWO_DIGITS},
        )


def speed(run: Job) -> None:
    """Tokens per second of both."""
    st.subheader(
        "Speed",
        anchor=False,
        help="On the server's device, one text at a time. Other work on the machine slows it "
        "down, so small differences mean little.",
    )
    st.caption("Prefill: 128 tokens at once. Decode: one by one. The best of four turns each.")
    questions.ask(SPEED, run, lambda: compare_tasks.speeds(run.result))
    pair = questions.answer(SPEED, run)
    if pair is None:
        return
    for column, label, old, new in zip(
        st.columns(2),
        ("Prefill", "Decode"),
        (pair.before.prefill, pair.before.decode),
        (pair.after.prefill, pair.after.decode),
        strict=True,
    ):
        column.metric(
            label,
            f"{rate(new)} tok/s",
            delta=f"{100 * (new / old - 1):+.0f}%",
            delta_description=f"dense {rate(old)}",
            border=True,
        )
    if not is_plausible(pair, run.result.report.kept_block_parameters):
        st.caption(
            "The sizes do not allow such a difference: the machine was busy. Time both again."
        )


def rate(value: float) -> str:
    """Tokens per second: ``7.3``, ``1,240``; whole ones would hide differences of slow models."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def text(run: Job) -> None:
    """The same prompt continued by both, side by side."""
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
    live = compare_tasks.LiveTexts()
    questions.ask(
        TEXTS,
        run,
        lambda: compare_tasks.texts(run.result, prompt, int(tokens), live),
        prompt,
        live,
        ready=bool(prompt.strip()),
    )
    pair, job = questions.answer(TEXTS, run), questions.latest(TEXTS, run)
    if pair is not None:
        _, (_, begun, *_) = questions.found(TEXTS, run)
        for side, text in _sides(pair):
            st.markdown(f"{side}{text.new_tokens} tokens in {text.seconds:.1f} s")
            _continued(begun, text.text)
    elif job is not None and job.active:
        _growing(job)


@st.fragment(run_every=0.5)
def _growing(job: Job) -> None:
    """Both texts as far as they are; the progress above redraws the page at the end."""
    if job.active:
        for side, pieces in _sides(job.request[2]):
            st.markdown(f"{side}generating")
            _continued(job.request[1], "".join(list(pieces)))


def _sides(pair: Any) -> Iterator[tuple[str, Any]]:
    """Each side in a box of its own."""
    sides = {"Dense": pair.before, "Pruned": pair.after}
    for column, (name, side) in zip(st.columns(2), sides.items(), strict=True):
        with column.container(border=True, height="stretch"):
            yield f"**{name}** · ", side


def _continued(prompt: str, text: str) -> None:
    # st.text: what a model generates must not be read as markup
    st.text(f"{prompt}{text}", width="stretch")
