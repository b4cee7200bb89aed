"""Compare: a passage marked by what each token lost in likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from app.components import token_marks
from app.components.csv_export import csv_button, token_rows
from app.components.text import amount
from app.jobs import compare_tasks, tasks
from app.jobs.queue import Job
from app.views.compare import evaluation

if TYPE_CHECKING:  # the engine's evaluation imports torch
    from pruning.evaluate import TokenLosses

WORST = 15
SHOWN = 15
"""Characters before a token: a cell is cut at its right end, which is the end that matters."""


def section(run: Job) -> None:
    """Reads the text chosen under Perplexity with both models."""
    st.subheader(
        "Tokens that suffered",
        anchor=False,
        help="The loss of a token is its negative log-likelihood: 1 nat more means that the "
        "pruned model gives it 2.7 times less probability than the dense one.",
    )
    source, seq_len, windows = evaluation.text_choice()
    st.caption(f"Text: {source}, {windows} windows of {seq_len} tokens, as chosen above.")
    job = evaluation.latest("tokens", run)
    pressed = evaluation.start_button(
        "Read with both",
        "compare.read",
        job,
        ":material/format_color_text:",
        tasks.has_models(run.result),
    )
    if pressed:
        evaluation.start_on_text(run, "tokens", "Tokens", compare_tasks.losses)
    if job is not None and evaluation.finished(job):
        _show(job.result)


def _show(found: TokenLosses) -> None:
    means = [passage.mean_rise for passage in found.passages]
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
            help="The passage that suffered most comes first.",
        )
        passage = found.passages[chosen if chosen is not None else worst]
        st.html(token_marks.legend_html())
        with st.container(border=True):
            st.html(token_marks.passage_html(passage.pieces, passage.dense, passage.pruned))
    with table:
        st.markdown(f"**The {WORST} largest falls in likelihood**")
        st.dataframe(
            [_row(found, *item) for item in found.worst(WORST)],
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
            f"Read: {found.corpus} ({found.split}), {amount(len(means), 'window')} of "
            f"{found.seq_len} tokens."
        )
        csv_button(partial(token_rows, found), "tokens", "compare.tokens.csv")


def before_token(pieces: Sequence[str], place: int) -> str:
    """The end of the text before token ``place``, as long as its column shows whole."""
    text = "".join(pieces[max(0, place - 5) : place]).replace("\n", " ")
    return f"…{text[-SHOWN:]}"


def _row(found: TokenLosses, index: int, place: int, rise: float) -> dict:
    passage = found.passages[index]
    return {
        "after": before_token(passage.pieces, place),
        "token": passage.pieces[place].strip() or repr(passage.pieces[place]),
        "dense": passage.dense[place - 1],
        "pruned": passage.pruned[place - 1],
        "rise": rise,
    }
