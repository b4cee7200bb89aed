"""The app: navigation, what every page shows, and the page that is open."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import pages, tour
from app.components.job_progress import job_strip
from app.components.theme_watch import watch_theme
from app.session import first_page, recipe_link, visitor_jobs

IMAGES = Path(__file__).parent / "images"

# Files of our own: a Material icon here would make the browser fetch it from the internet.
st.set_page_config(page_title="Headroom", page_icon=str(IMAGES / "icon.svg"), layout="wide")
st.logo(str(IMAGES / "logo.svg"), size="large")

by_name = {
    page.name: st.Page(page.script, title=page.title, url_path=page.name, icon=page.icon)
    for page in pages.every_page()
}


def landing() -> None:
    """The bare address opens the landing page."""
    st.switch_page(by_name[pages.landing().name], query_params=dict(st.query_params))


start = st.Page(landing, title="Headroom", default=True, visibility="hidden")
page = st.navigation([start, *by_name.values()], position="top")
visitor_jobs.reattach()
recipe_link.follow()
tour.follow(page.url_path)
# in places of their own, empty or not: the browser keeps an element's state by its place
with st.container():
    job_strip(page.url_path)
with st.container():
    tour.panel(page.url_path)
page.run()
watch_theme()
first_page.drawn().set()
