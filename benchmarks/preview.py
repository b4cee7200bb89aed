"""``python -m benchmarks.preview``: how fast a slider gets its plan from cached measurements.

Times ``make_plan`` for a synthetic model of 32 blocks × 32 heads × 11,008 channels (the size of
LLaMA-7B) and for the embedded model's measurement, over many values of τ and ratio; then the sheet
of all similarity graphs, drawn and written as the page sends it (node positions are cached there);
then all that the server does when τ moves on the Heads page, from the slider's value to the last
chart. There Streamlit's own test driver runs the whole page, of which a browser asks a part.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from app.charts.sheet import sheet_of_graphs
from app.session import state
from app.session.positions import node_positions
from pruning.artifacts.measurement import BlockMeasurement, Measurement, ModuleMeasurement
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import BlockShape, ModelShape, ModuleShape
from pruning.planning import make_plan
from pruning.planning.graph import block_graph

PAGES = Path(__file__).resolve().parents[1] / "app" / "navigation.py"


def synthetic(blocks: int, heads: int, channels: int) -> Measurement:
    """Random statistics of a Llama-shaped model with ``head_dim`` 128."""
    rng = np.random.default_rng(0)
    hidden = heads * 128
    attention = ModuleShape(
        "attention", heads, heads, 128, 2 * hidden * 128, 0, 2 * hidden * 128, 0, 0
    )
    ffn = ModuleShape("ffn", channels, 0, 1, 3 * hidden, 0, 0, 0, 0)
    shape = ModelShape(
        "LlamaForCausalLM",
        "llama",
        hidden,
        32000,
        4096,
        (BlockShape(attention, ffn, 2 * hidden),) * blocks,
        2 * 32000 * hidden,
        32000 * hidden,
        "float16",
    )
    return Measurement(
        "synthetic",
        None,
        "float16",
        "random",
        "",
        16,
        128,
        0,
        0.0,
        shape,
        tuple(_block(rng, heads, channels) for _ in range(blocks)),
    )


def _block(rng: np.random.Generator, heads: int, channels: int) -> BlockMeasurement:
    divergence = np.triu(rng.uniform(0, 0.69, (heads, heads)), 1).astype(np.float32)
    names = ("level2_sq", "input_second_moment")
    attention = {name: rng.random(heads * 128, dtype=np.float32) for name in names}
    ffn = {name: rng.random(channels, dtype=np.float32) for name in names}
    return BlockMeasurement(
        divergence + divergence.T, ModuleMeasurement(attention), ModuleMeasurement(ffn), {}
    )


def milliseconds(measurement: Measurement, repeats: int = 40) -> list[float]:
    """Times of one plan each, with τ and ratios that change every time."""
    times = []
    for step in range(repeats):
        share = (step + 1) / (repeats + 1)
        recipe = Recipe.parse(
            {"heads": {"threshold": 0.6 * share, "ratio": 0.5 * share}, "ffn": {"ratio": share / 2}}
        )
        started = time.perf_counter()
        plan = make_plan(measurement, recipe)
        assert plan.after.parameters < plan.before.parameters
        times.append(1000 * (time.perf_counter() - started))
    return times


def sheet_milliseconds(measurement: Measurement, repeats: int = 10) -> list[float]:
    """Times of one sheet each, from its graphs to JSON, at τ that changes every time."""
    places = [node_positions(block.divergence) for block in measurement.blocks]
    times = []
    for step in range(repeats):
        tau = 0.5 * (step + 1) / repeats
        recipe = Recipe.parse({"heads": {"threshold": tau}})
        plan = make_plan(measurement, recipe)
        started = time.perf_counter()
        graphs = [block_graph(measurement, plan, recipe, n, at) for n, at in enumerate(places)]
        sheet_of_graphs(graphs, open_block=0, selected=0).to_json(validate=False)
        times.append(1000 * (time.perf_counter() - started))
    return times


def first_page_milliseconds(measurement: Measurement) -> float:
    """Time of the first run of the Heads page, up to its first chart."""
    page = AppTest.from_file(str(PAGES), default_timeout=600)
    page.session_state[state.MEASUREMENT] = measurement
    started = time.perf_counter()
    page.run()
    assert page.get("plotly_chart") and not page.exception
    return 1000 * (time.perf_counter() - started)


def page_milliseconds(measurement: Measurement) -> list[float]:
    """Times of the whole Heads page at τ that changes every time."""
    page = AppTest.from_file(str(PAGES), default_timeout=600)
    page.session_state[state.MEASUREMENT] = measurement
    page.run()  # lands on Heads and stops after the first chart
    times = []
    for step in range(1, 12):
        page.slider(key="heads.tau").set_value(round(0.03 * step, 3))
        started = time.perf_counter()
        page.run()
        times.append(1000 * (time.perf_counter() - started))
        assert len(page.get("plotly_chart")) == 4 and not page.exception
    return times[1:]  # the first run has laid out the nodes of every block


def main() -> None:
    """Print a Markdown table; the limits are 100 ms for a plan and 200 ms for what is drawn."""
    cases = {
        "32 blocks x 32 heads x 11,008 channels": synthetic(32, 32, 11008),
        "embedded model (30 x 9 x 1,536)": state.demo_measurement(),
    }
    print("| what | model | median | slowest | limit |\n|---|---|---|---|---|")
    for what, timed, limit in (
        ("plan", milliseconds, 100),
        ("sheet", sheet_milliseconds, 200),
        ("move of τ, whole page", page_milliseconds, 200),
    ):
        for name, measurement in cases.items():
            times = timed(measurement)
            median, slowest = statistics.median(times), max(times)
            print(f"| {what} | {name} | {median:.0f} ms | {slowest:.0f} ms | {limit} ms |")


if __name__ == "__main__":
    main()
