"""The page that a browser gets first, and what is warm before it asks for more."""

from __future__ import annotations

import re
import subprocess
import sys

from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import pages
from app.server import index_page
from app.session import state
from app.session.positions import node_positions
from app.warmup import warm_up


def client() -> TestClient:
    return TestClient(Starlette(routes=index_page.routes()))


def test_the_bare_address_leads_to_the_first_picture_with_its_query():
    answer = client().get("/?job=abc&block=3", follow_redirects=False)
    assert answer.status_code == 307
    assert answer.headers["location"] == "heads?job=abc&block=3"
    assert client().get("/", follow_redirects=False).headers["location"] == "heads"


def test_every_page_is_streamlits_own_with_the_hints():
    original = (index_page.STATIC / "index.html").read_text(encoding="utf-8")
    for page in pages.every_page():
        answer = client().get(f"/{page.name}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-cache"
        head, _, rest = original.partition("</head>")
        assert answer.text.startswith(head) and answer.text.endswith(rest)
        assert "BACKEND_BASE_URL" in answer.text
        assert "max-width: initial" in answer.text  # wide from the first stroke: nothing moves


def test_what_is_fetched_early_exists_and_is_complete():
    page = index_page.front_page()
    fetched = re.findall(r'href="\./static/js/([^"]+)"', page)
    assert len(fetched) == len(set(fetched))
    scripts = index_page.STATIC / "static" / "js"
    assert all((scripts / name).is_file() for name in fetched)
    assert any(name.startswith("PlotlyChart.") for name in fetched)
    # a script that waits for another one is not early
    for name in fetched:
        assert all(needed in page for needed in index_page._imports(scripts / name))


def test_another_streamlit_only_loses_the_early_scripts(tmp_path):
    (tmp_path / "index.html").write_text("<html><head></head><body></body></html>")
    page = index_page.front_page(tmp_path)
    assert "modulepreload" not in page
    assert page.endswith("</head><body></body></html>")


def test_warming_up_reads_the_measurement_once(monkeypatch):
    warm_up()
    measurement = state.demo_measurement()

    def again(*_):
        raise AssertionError("not warm")

    monkeypatch.setattr("app.session.positions.content", again)
    for block in measurement.blocks:
        assert len(node_positions(block.divergence)) == len(block.divergence)


def loaded_by(code: str) -> str:
    """Which of some large packages a fresh Python has loaded after ``code``."""
    large = {"torch", "transformers", "pandas", "scipy"}
    code += f"; import sys; print(*sorted({large} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_warming_up_loads_neither_torch_nor_transformers_nor_scipy():
    assert loaded_by("from app.warmup import warm_up; warm_up()") == ""


def test_pandas_is_whole_before_a_page_can_draw():
    """A chart that is made while another thread imports it fails."""
    assert loaded_by("import app.main") == "pandas"
