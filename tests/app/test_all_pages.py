"""What holds on every page: the running job, a reload, nothing heavy imported."""

from __future__ import annotations

import subprocess
import sys

from streamlit.testing.v1 import AppTest

from app import pages
from tests.helpers.stand_ins import MAIN, OWNER, PATIENCE, button


def test_another_page_shows_the_running_job(visit, engine):
    engine.submit()
    assert button(visit("model"), "Cancel")


def test_a_reloaded_tab_finds_its_job_again(visit, engine):
    job = engine.submit()
    at = AppTest.from_file(MAIN, default_timeout=PATIENCE)
    at.query_params["job"] = job.id
    at.run()
    assert at.session_state["headroom.owner"] == OWNER
    assert at.session_state["headroom.draft"] == engine.recipe


def test_drawing_every_page_imports_no_torch():
    files = [str(page.script) for page in pages.every_page()]
    code = f"""
import sys
from streamlit.testing.v1 import AppTest
at = AppTest.from_file({MAIN!r}, default_timeout={PATIENCE}).run()
for page in {files!r}:
    at.switch_page(page).run()
    assert not at.exception, (page, at.exception)
heavy = [name for name in ("torch", "transformers", "datasets") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
