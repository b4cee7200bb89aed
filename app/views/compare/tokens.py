"""Compare: a passage marked by how much the loss of each token increased."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from app.components import token_marks
from app.components.csv_export import csv_button, token_rows
from app.components.text import amount
from app.jobs import compare_tasks
from app.jobs.job import Job
from app.views.compare import questions
from app.views.compare.questions import TOKENS

if TYPE_CHECKING:  # the engine's evaluation imports torch
    from pruning.evaluate import TokenLosses

WORST = 15
SHOWN = 15
"""Characters before a token: a cell is cut at its right end, which is the end that matters."""


def section(run: Job) -> None:
    """Reads the text chosen under Perplexity with both models."""
    st.subheader(
        "Tokens with the largest loss increase",
        anchor=False,
        help="The loss of a token is its negative log-likelihood: 1 nat more means that the "
        "pruned model gives it 2.7 times less probability than the dense one.",
    )
    st.caption(f"Text: {questions.text_in_words()}, as chosen above.")
    questions.ask(TOKENS, run, lambda: questions.on_text(compare_tasks.losses, run))
    losses = questions.answer(TOKENS, run)
    if losses is not None:
        _show(losses)


def _show(losses: TokenLosses) -> None:
    means = [passage.mean_rise for passage in losses.passages]
    worst = max(range(len(means)), key=means.__getitem__)
    reading, table = st.columns([3, 2], gap="large")
    with reading:
        order = sorted(range(len(means)), key=lambda index: -means[index])
        chosen = st.selectbox(
            "Passage",
            order,
            index=order.index(worst),
            key="compare.passage",
            format_func=lambda index: (
                f"Window {index + 1} of {len(means)}: {means[index]:+.2f} nats per token"
            ),
            help="The passage with the largest mean increase comes first.",
        )
        passage = losses.passages[chosen if chosen is not None else worst]
        st.html(token_marks.legend_html())
        with st.container(border=True):
            st.html(token_marks.passage_html(passage.pieces, passage.dense, passage.pruned))
    with table:
        st.markdown(f"**The {WORST} tokens with the largest increase**")
        st.dataframe(
            [_row(losses, *item) for item in losses.worst(WORST)],
            hide_index=True,
            height=380,
            width="stretch",
            column_config={
                "after": st.column_config.TextColumn(width=120),
                "token": st.column_config.TextColumn(width=60),
                **{
                    name: st.column_config.NumberColumn(format="%.2f", width=52)
                    for name in ("dense", "pruned", "rise")
                },
            },
        )
        st.caption(
            f"Read: {losses.corpus} ({losses.split}), {amount(len(means), 'window')} of "
            f"{losses.seq_len} tokens."
        )
        csv_button(partial(token_rows, losses), "tokens", "compare.tokens.csv")


def before_token(pieces: Sequence[str], place: int) -> str:
    """The end of the text before token ``place``, as long as its column shows whole."""
    text = "".join(pieces[max(0, place - 5) : place]).replace("\n", " ")
    return f"…{text[-SHOWN:]}"


def _row(losses: TokenLosses, index: int, place: int, rise: float) -> dict:
    passage = losses.passages[index]
    return {
        "after": before_token(passage.pieces, place),
        "token": passage.pieces[place].strip() or repr(passage.pieces[place]),
        "dense": passage.dense[place - 1],
        "pruned": passage.pruned[place - 1],
        "rise": rise,
    }
