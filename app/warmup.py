"""What the first visitor would wait for, done in the background while the server comes up."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamlit.starlette import App

from app import settings
from app.jobs import memory
from app.server import downloads


@asynccontextmanager
async def warming(app: App) -> AsyncIterator[None]:
    """Lifespan of the server. Nobody waits for the thread: a page that is opened sooner does the
    same work itself. At the end, files made for download go."""
    threading.Thread(target=_in_background, name="warm-up", daemon=True).start()
    try:
        yield
    finally:
        downloads.download_store().clear()


SETTLED = 3.0
"""Seconds after the first page's script, by which its charts have arrived."""


def _in_background() -> None:
    from app.session import first_page

    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # meanwhile the server has to answer many small requests
    first_page.warming_up().set()
    try:
        warm_up()
        memory.leave_out_of_collections()
        measure_machine()
        first_page.warming_up().clear()
        if settings.current().preload:
            preload()
    finally:
        first_page.warming_up().clear()
        sys.setswitchinterval(usual)


def measure_machine() -> None:
    """Find out how fast the machine is, for the estimates."""
    from app.session import visitor_jobs

    visitor_jobs.measure_machine()


def preload() -> None:
    """Once a page has been drawn, load the embedded model and what prunes it: a first run then
    begins with its first decision. A run that is started sooner waits for the same model."""
    from app.session import first_page, visitor_jobs

    first_page.drawn().wait()
    time.sleep(SETTLED)
    visitor_jobs.preload()


def warm_up() -> None:
    """Import what the pages import, read the embedded measurement and draw the first page's
    charts once. Nothing here may import torch."""
    # imported here, so that the server answers before
    from app import tour  # noqa: F401
    from app.charts.divergence import divergence_heatmap
    from app.charts.overview import blocks_overview
    from app.charts.sheet import sheet_of_graphs
    from app.session import (
        recipe_link,  # noqa: F401
        state,
        visitor_jobs,  # noqa: F401
    )
    from app.session.positions import node_positions
    from app.views.heads import (
        all_blocks,  # noqa: F401
        open_block,  # noqa: F401
        preview,
    )
    from app.views.heads import attention_maps as pattern_section  # noqa: F401
    from pruning.planning import make_plan
    from pruning.planning.graph import block_graph, count_similar

    measurement = state.demo_measurement()
    inspect.stack()  # Streamlit asks this once; the first answer reads every module's path
    tau = preview.FIRST_LOOK
    recipe = state.initial_recipe().changed(heads={"threshold": tau})
    plan = make_plan(measurement, recipe)
    places = [node_positions(block.divergence) for block in measurement.blocks]
    graphs = [block_graph(measurement, plan, recipe, n, at) for n, at in enumerate(places)]
    counts = [count_similar(graph) for graph in graphs]
    losses = preview.losses_per_block(measurement, plan)
    divergence_heatmap(measurement.blocks[0].divergence, tau).to_json()
    blocks_overview(plan, counts, open_block=0, losses=losses).to_json()
    sheet_of_graphs(graphs, open_block=0).to_json()
