"""The app: navigation, what every page shows, and the page that is open."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import pages, tour
from app.components.audience import audience_strip
from app.components.bare import bare_page
from app.components.job_progress import job_strip
from app.components.theme_watch import watch_theme
from app.session import first_page, recipe_link, visitor_jobs

IMAGES = Path(__file__).parent / "images"

# Files of our own: a Material icon here would make the browser fetch it from the internet.
st.set_page_config(page_title="Headroom", page_icon=str(IMAGES / "icon.svg"), layout="wide")

by_name = {
    page.name: st.Page(
        page.script,
        title=page.title,
        url_path=page.name,
        icon=page.icon,
        visibility="hidden" if page.alone else "visible",
    )
    for page in pages.every_page()
}


def landing() -> None:
    """The bare address opens the landing page."""
    st.switch_page(by_name[pages.landing().name], query_params=dict(st.query_params))


def around(page: str) -> None:
    """What stands above every page: the logo, the running job, the tour."""
    st.logo(str(IMAGES / "logo.svg"), size="large")
    visitor_jobs.reattach()
    recipe_link.follow()
    tour.follow(page)
    # in places of their own, empty or not: the browser keeps an element's state by its place
    with st.container():
        job_strip(page)
    with st.container():
        audience_strip()
    with st.container():
        tour.panel(page)


start = st.Page(landing, title="Headroom", default=True, visibility="hidden")
everything = [start, *by_name.values()]
page = st.navigation(everything, position="top")
if any(page.url_path == one.name and one.alone for one in pages.every_page()):
    page = st.navigation(everything, position="hidden")
    bare_page()
else:
    around(page.url_path)
page.run()
watch_theme()
first_page.drawn().set()
