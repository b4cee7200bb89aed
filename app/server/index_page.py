"""What a browser is given before the app speaks: Streamlit's own page with hints.

Streamlit fetches the scripts of sliders and charts only when the first of them has come; here they
are fetched while the page still connects. And it looks for its server below the address it was
opened with, which for ``/heads`` is a 404 in the console; here it is told where the server is. A
Streamlit that is built otherwise takes no notice of either.
"""

from __future__ import annotations

import re
from pathlib import Path

import streamlit
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from streamlit import config

from app import pages

STATIC = Path(streamlit.__file__).parent / "static"

_SERVER = """<script>
window.__streamlit = {BACKEND_BASE_URL: location.origin
  + location.pathname.replace(/\\/(%s)\\/?$/, "/")}
</script>
"""
_STILL = """<style>
@media (min-width: calc(736px + 8rem)) {
  div[data-testid=stMainBlockContainer] {
    max-width: initial; padding-left: 5rem; padding-right: 5rem }
}
[class*=st-key-field-] { min-height: 68px }
.st-key-compare-costs [data-testid=stElementContainer] { min-height: 119px }
.st-key-headline { min-height: calc(1.65 * clamp(1.6rem, 2.9vw, 3.2rem)) }
@media (max-width: 640px) { .st-key-headline { min-height: 6.3rem } }
</style>
"""
"""So that nothing moves while a page comes: what ``layout="wide"`` makes of it, of which Streamlit
hears after it has drawn it narrow, and room for elements whose scripts are still on the way."""
_FETCH = """<link rel="modulepreload" fetchpriority="low" crossorigin href="./static/js/%s">
"""
_FIRST_PAGE = ("Button", "Slider", "Checkbox", "ButtonGroup", "PlotlyChart")
"""Streamlit's scripts for what the first page shows first."""


def front_page(static: Path = STATIC) -> str:
    """Streamlit's index.html with the hints."""
    page = (static / "index.html").read_text(encoding="utf-8")
    scripts = static / "static" / "js"
    needed: list[str] = []
    todo = [path.name for name in _FIRST_PAGE for path in sorted(scripts.glob(f"{name}.*.js"))]
    while todo:
        name = todo.pop(0)
        if name not in needed and name not in page and (scripts / name).is_file():
            needed.append(name)
            todo += _imports(scripts / name)
    hints = _SERVER % "|".join(_names()) + _STILL + "".join(_FETCH % name for name in needed)
    return page.replace("</head>", hints + "</head>", 1)


def _names() -> list[str]:
    return [page.name for page in pages.every_page()]


def _imports(script: Path) -> list[str]:
    """Names of the scripts that ``script`` imports; a bundle says so at its beginning."""
    with script.open(encoding="utf-8") as text:
        return re.findall(r'from"\./([\w.-]+\.js)"', text.read(8000))


def routes() -> list[Route]:
    """Every page's address, and the bare one, which leads to the landing page."""
    text = front_page()

    async def open_page(request: Request) -> Response:
        return HTMLResponse(text, headers={"Cache-Control": "no-cache"})

    async def open_first(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return Response(status_code=307, headers={"Location": pages.landing().name + query})

    base = (config.get_option("server.baseUrlPath") or "").strip("/")
    root = f"/{base}/" if base else "/"
    return [Route(root, open_first), *(Route(root + name, open_page) for name in _names())]
