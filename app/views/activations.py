"""Activations: how large they are in every block, and which channels stand out."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app.charts.activations import (
    PLACES,
    channel_bars,
    channel_rows,
    magnitude_alt,
    magnitude_per_block,
    magnitude_rows,
    quantile_profile,
)
from app.components.block_picker import block_slider, on_open
from app.components.chart import show_chart, show_figure
from app.components.csv_export import csv_row
from app.components.text import spans
from app.components.widgets import page_header
from app.pages import Page
from app.session.state import current_measurement
from pruning.artifacts.measurement import Measurement
from pruning.planning.analysis import OUTLIER_FACTOR, largest_channels, outlier_channels

PAGE = Page("Activations", ":material/equalizer:", place=30)

RULE = (
    f"A channel is an **outlier** when its mean |x| is more than {OUTLIER_FACTOR:g} times the "
    "mean |x| of all channels at the same place."
)


def show_all(measurement: Measurement, block: int) -> None:
    """Magnitude of every block at the three places."""
    drawn = magnitude_per_block(measurement, open_block=block)
    alt = magnitude_alt(measurement)
    show_figure(drawn, alt, "magnitudes", "activations.blocks", on_open)
    st.caption(
        "|x| is the absolute value of an activation, over all measured tokens and channels; "
        "bands are quantiles. Log axes, each with its own range. The line marks the open block: "
        "click a dot or a diamond to open another."
    )


def show_block(measurement: Measurement, block: int) -> None:
    """Quantiles and largest channels of one block."""
    activations = dict(measurement.blocks[block].activations)
    st.subheader(f"Block {block}", anchor=False)
    show_chart(quantile_profile(block, activations), "profile", "activations.profile")
    st.markdown(f"**Largest channels** by mean |x|. {RULE}")
    for column, (place, title) in zip(st.columns(3, gap="medium"), PLACES.items(), strict=True):
        channels = largest_channels(activations[place])
        outliers = [str(row.channel) for row in channels if row.is_outlier]
        with column:
            st.markdown(f"{title}")
            chart = channel_bars(block, place, channels, OUTLIER_FACTOR)
            show_chart(chart, f"channels-{place}", f"activations.{place}")
            st.caption(f"Outliers: {', '.join(outliers)}." if outliers else "No outlier here.")


def show_outliers(measurement: Measurement) -> None:
    """Outlier channels of all blocks in one table."""
    st.subheader("Outlier channels of the whole model", anchor=False)
    rows = [
        {
            "Place": title,
            "Channel": row.channel,
            "Blocks": len(row.blocks),
            "Which blocks": spans(row.blocks),
            "Largest": row.worst,
            "In block": row.worst_block,
        }
        for place, title in PLACES.items()
        for row in outlier_channels(measurement, place)
    ]
    if not rows:
        st.markdown(f"There are none. {RULE}")
        return
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        column_config={
            "Largest": st.column_config.NumberColumn(
                format="%.1f ×", help="Its mean |x| as a multiple of the mean of all channels."
            )
        },
    )
    kept = max(
        len(block.activations[p].top_channels) for block in measurement.blocks for p in PLACES
    )
    st.caption(
        f"The measurement keeps the {kept} largest channels of each block and place, so there "
        "may be more. Outliers in the residual stream are a normal trait of trained models; "
        "pruning cuts heads and FFN channels and leaves the residual stream as wide as it is."
    )


@st.fragment
def explorer() -> None:
    """The page body; redrawn on its own when another block opens."""
    measurement = current_measurement()
    block = block_slider("activations.block")
    show_all(measurement, block)
    show_block(measurement, block)
    show_outliers(measurement)
    csv_row(
        (partial(magnitude_rows, measurement), "magnitudes", "activations.magnitudes.csv"),
        (partial(channel_rows, measurement), "channels", "activations.channels.csv"),
    )


page_header(
    "Activations",
    "How large the numbers inside the model are. Channels that stay small add little.",
)
explorer()
