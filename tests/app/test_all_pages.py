"""What holds on every page: the running job, a reload, nothing heavy imported."""

from __future__ import annotations

import subprocess
import sys

from app import pages
from tests.helpers import PATIENCE
from tests.helpers.stand_ins import MAIN, at_address, button, draft_of, page_file


def test_another_page_shows_the_running_job(visit, engine):
    engine.submit()
    assert button(visit("model"), "Cancel")


def test_a_reloaded_tab_finds_its_job_again(visit, engine):
    job = engine.submit()
    at = at_address(job=job.id)
    assert draft_of(at) == engine.recipe
    assert button(at.switch_page(page_file("model")).run(), "Cancel")


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
