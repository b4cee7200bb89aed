"""What is pressed while a part of the page is being drawn: the server's settings decide on it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetState

from benchmarks.server import server
from benchmarks.streamlit_client import Tab

PAGE = """
import time
from pathlib import Path

import streamlit as st

folder = Path({folder!r})


@st.fragment
def part():
    st.button("Press", on_click=(folder / "pressed").touch)
    st.slider("Part", 0.0, 1.0)
    (folder / "drawing").touch()
    while (folder / "hold").exists():
        time.sleep(0.01)


part()
st.slider("Whole", 0.0, 1.0)
"""


def until(condition):
    patience = time.monotonic() + 60
    while not condition() and time.monotonic() < patience:
        time.sleep(0.02)
    return condition()


async def _press_meanwhile(port, folder):
    tab = Tab(port)
    await tab.open("")
    button, whole = tab.find("button", "Press"), tab.find("slider", "Whole")
    part = tab._fragments[tab.find("slider", "Part").id]
    (folder / "drawing").unlink()
    (folder / "hold").touch()
    await tab._send([], part)  # as a timer does
    assert await asyncio.to_thread(until, (folder / "drawing").exists)
    await tab._send([WidgetState(id=button.id, trigger_value=True)], part)
    moved = WidgetState(id=whole.id)
    moved.double_array_value.data.append(0.5)
    await tab._send([moved], "")
    await asyncio.sleep(0.5)  # both are known to the server
    (folder / "hold").unlink()
    pressed = await asyncio.to_thread(until, (folder / "pressed").exists)
    await tab.close()
    return pressed


@pytest.mark.slow
def test_a_press_is_not_lost_where_the_whole_page_is_asked_for_next(tmp_path):
    script = tmp_path / "page.py"
    script.write_text(PAGE.format(folder=str(tmp_path)))
    with server(script) as (address, *_), ThreadPoolExecutor(1) as apart:
        port = urlsplit(address).port
        assert apart.submit(asyncio.run, _press_meanwhile(port, tmp_path)).result()
